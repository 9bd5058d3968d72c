"""Helpers that every part of the package may use: checks, files, machine, types, wording."""
