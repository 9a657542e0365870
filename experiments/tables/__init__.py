"""Tables and reports of finished runs, which several scripts share."""
