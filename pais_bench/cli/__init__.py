"""Hold the command line: main.py parses it, context.py is shared by the commands, commands/ has a file for each."""
