"""A recipe and its settings -> a training script."""
