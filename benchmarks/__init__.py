"""Benchmarks: how fast pgtasks is on this machine, each figure beside what it can be held against.

`python -m benchmarks --help`; docs/performance.md says what is measured and how to read it.
"""
