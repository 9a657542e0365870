"""What only the scripts share: tables and reports of finished runs."""
