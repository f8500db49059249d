"""Split families, one file each: the labelled images of a series of papers. splits/family.py has the interface."""
