"""Run the command line as `python -m pais_bench`."""

import sys

from pais_bench.cli.start import main

sys.exit(main())
