"""Compiles for a described machine: the same as `python -m coded_jax compile`."""

from coded_jax.cli.command_line import run
from coded_jax.cli.commands.compile import main

if __name__ == "__main__":
    run(main)
