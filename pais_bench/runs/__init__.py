"""Know the files in the folder of a run: their names, its lock, the data that it was trained on, and its logs."""
