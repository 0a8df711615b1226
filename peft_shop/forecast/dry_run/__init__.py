"""Forecasts by a dry run: a training step on the meta device, replayed through an allocator."""
