"""Plan -> batches, on all cores."""
