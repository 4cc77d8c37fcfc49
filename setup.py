"""Lists the packages: folder ``X/`` of this repository is the package ``sparsespike.X``."""

from setuptools import find_packages, setup

FOLDERS = ["common", "ann", "export", "backends", "energy", "cli"]

setup(packages=[f"sparsespike.{name}" for name in find_packages(include=[p for f in FOLDERS for p in (f, f"{f}.*")])])
