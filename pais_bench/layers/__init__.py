"""Losses, heads and helpers that the adapters of all frameworks share."""
