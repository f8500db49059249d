"""Know the files in the folder of a run: their names, its lock, and the data that it was trained on."""
