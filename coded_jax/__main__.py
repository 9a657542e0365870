"""Starts a command: `python -m coded_jax`, or `coded_jax` where it is installed."""

from coded_jax.cli.main import main

if __name__ == "__main__":
    main()
