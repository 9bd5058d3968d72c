#!/usr/bin/env python
"""Evaluate a trained model on a text; the same as `deeprnn evaluate`."""

import sys

from deeprnn.cli.main import main

sys.exit(main(["evaluate", *sys.argv[1:]]))
