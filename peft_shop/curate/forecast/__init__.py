"""How good forecasts are: fits their constants and compares them with every run on file."""
