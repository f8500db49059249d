"""Studies: a YAML file each; study.py has their keys, run.py what a run of the grid is, load.py reads them."""
