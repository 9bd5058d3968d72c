"""Run the command line with `python -m deeprnn`."""

import sys

try:
    from .cli.main import main

    sys.exit(main())
except KeyboardInterrupt:  # before there was a command
    sys.exit(130)
