"""Datasets, one file each: class Options, class Dataset. The file is the registration."""
