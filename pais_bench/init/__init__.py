"""Propose a study for a folder of photos: what is in it, which rule follows from it, and the YAML with its reasons."""
