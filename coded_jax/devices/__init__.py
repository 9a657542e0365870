"""Devices: mesh, placement, several processes, start-up."""
