"""Check what a machine gives a study: GPUs and their driver, cores and memory, file system, SLURM."""
