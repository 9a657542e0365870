"""Wrong results: found by checking the results of a stage against each other."""
