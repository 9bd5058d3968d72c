"""Run the command line with `python -m deeprnn`."""

import sys

from .cli.main import main

sys.exit(main())
