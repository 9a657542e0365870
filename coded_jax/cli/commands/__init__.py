"""The commands, a module each: its flags, and its `main`."""
