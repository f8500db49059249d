"""Pack runs as bundles, check and evaluate bundles of others, and rank them on a page."""
