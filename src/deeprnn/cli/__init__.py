"""The command line: `main` parses the arguments and runs a command; each command is a module."""
