"""Shows how images are split: the same as `python -m coded_jax plan`."""

from coded_jax.cli.command_line import run
from coded_jax.cli.commands.plan import main

if __name__ == "__main__":
    run(main)
