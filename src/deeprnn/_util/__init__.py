"""What every part may use: checks, files, the machine, types."""
