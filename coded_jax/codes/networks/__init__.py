"""Networks of learned codes."""
