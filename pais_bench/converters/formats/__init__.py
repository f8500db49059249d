"""Read the labels of one format of another tool in each file."""
