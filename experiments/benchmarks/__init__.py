"""The benchmark against PyTorch: jobs, timing, rows and tables."""
