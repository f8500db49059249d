"""Networks built from detectron2."""
