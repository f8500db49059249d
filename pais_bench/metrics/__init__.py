"""Metrics, one file each: what is measured, and by whose definition."""
