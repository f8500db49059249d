"""Data: loader.py gives the batch of any step, read.py reads images and labels, augment.py makes the views."""
