"""Devices: mesh, placement, processes, Ray, compiling for devices not at hand."""
