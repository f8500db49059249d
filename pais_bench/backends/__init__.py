"""Backends: networks of a framework, one file each, in a folder per framework."""
