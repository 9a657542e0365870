"""What only `benchmark.py` uses: jobs in JAX and in PyTorch, timing, tables."""
