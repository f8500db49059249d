"""Benchmark semi-supervised instance segmentation: PAIS and its baselines on one training loop."""

__version__ = "0.1.0"
