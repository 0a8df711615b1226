"""The web page: facts compiled for it, files written, folder served."""
