"""Latency without workers: stragglers, strategies, their simulation and maps."""
