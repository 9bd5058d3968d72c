#!/usr/bin/env python
"""Generate text with a trained model; the same as `deeprnn generate`."""

import sys

from deeprnn.cli.main import main

sys.exit(main(["generate", *sys.argv[1:]]))
