"""Forecasts in closed form: needs neither torch nor peft."""
