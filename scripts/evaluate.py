#!/usr/bin/env python
"""Measure a trained model on a part of its text: `deeprnn evaluate`."""

import sys

from deeprnn.cli.main import main

sys.exit(main(["evaluate", *sys.argv[1:]]))
