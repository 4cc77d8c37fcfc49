"""The alternatives that ``benchmarks/backends.py`` measures in turns, one family a module."""
