#!/usr/bin/env python
"""Write text with a trained model: `deeprnn generate`."""

import sys

from deeprnn.cli.main import main

sys.exit(main(["generate", *sys.argv[1:]]))
