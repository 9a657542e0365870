"""Writes a finished run as one file that runs without this package.

The same as `python -m coded_jax export`.
"""

from coded_jax.cli.command_line import run
from coded_jax.cli.commands.export import main

if __name__ == "__main__":
    run(main)
