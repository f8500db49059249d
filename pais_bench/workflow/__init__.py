"""Follow a workflow while it runs: the progress of its runs, as a table of a terminal or as lines."""
