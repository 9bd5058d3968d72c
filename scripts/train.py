#!/usr/bin/env python
"""Train a language model on a text; the same as `deeprnn train`."""

import sys

from deeprnn.cli.main import main

sys.exit(main(["train", *sys.argv[1:]]))
