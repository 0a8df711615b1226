"""Pictures of answers, comparisons and forecasts; matplotlib is loaded when one is drawn."""
