"""Runs one experiment: the same as `python -m coded_jax run`."""

from coded_jax.cli.command_line import run
from coded_jax.cli.commands.run import main

if __name__ == "__main__":
    run(main)
