"""Adapter x base x engine -> route."""
