"""Data: texts by name or path, vocabularies, batches of ids."""
