"""Commands of the installed package."""
