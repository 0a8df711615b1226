"""Equal-conditions comparison of candidates on the user's own model and data."""
