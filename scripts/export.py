#!/usr/bin/env python
"""Write a trained model for use elsewhere; the same as `deeprnn export`."""

import sys

from deeprnn.cli.main import main

sys.exit(main(["export", *sys.argv[1:]]))
