"""The command line: `main` reads the flags and calls a command; each command has a file of its own."""
