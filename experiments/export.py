"""Writes a run as one file: the same as `python -m coded_jax export`."""

from coded_jax.cli.command_line import run
from coded_jax.cli.commands.export import main

if __name__ == "__main__":
    run(main)
