"""Annotations: COCO records that are validated (validate.py) and stored in memory-mapped tables (store.py)."""
