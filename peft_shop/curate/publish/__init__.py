"""Sources -> the one file that others vendor."""
