"""Datasets, one file each: class Options, class Dataset."""
