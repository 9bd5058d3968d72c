"""Benchmarks, comparisons and studies: in the repository, not in the wheel."""
