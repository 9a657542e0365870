"""Runs many experiments: the same as `python -m coded_jax sweep`."""

from coded_jax.cli.command_line import run
from coded_jax.cli.commands.sweep import main

if __name__ == "__main__":
    run(main)
