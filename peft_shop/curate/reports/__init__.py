"""What maintainers are shown."""
