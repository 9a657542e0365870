"""Devices: the mesh, several processes, start-up, and Ray's cluster."""
