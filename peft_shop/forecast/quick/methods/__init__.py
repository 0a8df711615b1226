"""Closed forms of what each method adds to a model: tensors and kept activations."""
