"""Serves a run: the same as `python -m coded_jax serve`."""

from coded_jax.cli.command_line import run
from coded_jax.cli.commands.serve import main

if __name__ == "__main__":
    run(main)
