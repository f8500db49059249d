"""Download published data, weights and label lists, each file checked against its published digest."""
