"""Hold the commands, one file each: its docstring is the help text, add_arguments and run do the rest."""
