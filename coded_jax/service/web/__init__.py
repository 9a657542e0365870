"""Requests over HTTP: the front of a service on an ASGI server, and a client of it."""
