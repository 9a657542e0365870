"""Serves the model of a flagfile, with a worker for every piece.

The same as `python -m coded_jax serve`.
"""

from coded_jax.cli.command_line import run
from coded_jax.cli.commands.serve import main

if __name__ == "__main__":
    run(main)
