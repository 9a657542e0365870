"""Reports: tables, figures, and the frontier of codes."""
