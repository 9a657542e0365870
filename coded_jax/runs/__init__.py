"""Runs: from a configuration to `results.json`, and what finished runs are used for."""
