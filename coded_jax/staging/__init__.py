"""Stages of any CNN, found by its jaxpr: cuts, chains of least cost, functions."""
