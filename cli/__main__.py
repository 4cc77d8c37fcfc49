"""``python -m sparsespike.cli``."""

from sparsespike.cli.main import main

main()
