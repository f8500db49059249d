#!/bin/sh
# Snakemake runs this, from the project's folder, in the environment of conda that it made from detectron2.yaml.
set -eu
exec "$CONDA_PREFIX/bin/python" envs/build.py detectron2 --into "$CONDA_PREFIX"
