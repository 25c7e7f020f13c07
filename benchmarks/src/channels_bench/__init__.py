"""Benchmarks of channels beside its peers; never published."""
