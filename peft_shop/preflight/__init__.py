"""What a configuration really touches on a model, before any weight is loaded."""
