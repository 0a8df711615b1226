"""What forecasts are fitted to, and how far they are off."""
