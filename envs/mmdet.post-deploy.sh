#!/bin/sh
# Snakemake runs this, from the project's folder, in the environment of conda that it made from mmdet.yaml.
set -eu
exec "$CONDA_PREFIX/bin/python" envs/build.py mmdet --into "$CONDA_PREFIX"
