"""Data: loader.py gives the batch of any step, recipe.py draws views, augment.py makes them, labels.py makes masks."""
