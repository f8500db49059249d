"""Splits: which images are labelled. families/ has a file per published protocol, label_noise.py the label noise."""
