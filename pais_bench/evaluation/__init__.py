"""Evaluation: metrics/ has a file per protocol, coco/ the fast COCO evaluator, significance.py the statistics."""
