"""Compiling for described machines: topologies, chips, programs and their HLO."""
