"""Commands of the package: `python -m coded_jax`."""
