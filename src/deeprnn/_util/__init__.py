"""Helpers that every part of the package may use: checks, files, machine, the numpy for mxnet, types, wording."""
