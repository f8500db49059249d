"""Run the command line as `python -m pais_bench`, and as `pais-bench`."""

import sys


def main() -> int:
    """Run the command and return its exit code; Ctrl-C ends the second of imports before it in one line too."""
    try:
        from pais_bench.cli.main import main

        return main()
    except KeyboardInterrupt:
        print("pais-bench: ended by Ctrl-C; run the same command to continue", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
