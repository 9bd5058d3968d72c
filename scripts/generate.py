#!/usr/bin/env python
"""Write text with a trained model: `deeprnn generate`."""

import sys

from deeprnn.cli import main

sys.exit(main(["generate", *sys.argv[1:]]))
