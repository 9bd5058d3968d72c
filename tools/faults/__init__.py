"""Faults that are made on purpose: killed processes, failing system calls, lost power, damaged and hostile files."""
