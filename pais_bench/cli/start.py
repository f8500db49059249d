"""Start the command line, whose imports take a second, in which Ctrl-C may come."""

import sys


def main() -> int:
    """Run one command and return its exit code."""
    try:
        from pais_bench.cli.main import main

        return main()
    except KeyboardInterrupt:
        print("pais-bench: ended by Ctrl-C; run the same command to continue", file=sys.stderr)
        return 130
