"""A recipe and its settings -> the file that a training tool reads."""
