"""Metrics, one file each: a protocol with the name of the code that defines it."""
