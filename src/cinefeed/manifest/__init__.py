"""One row a sample: scan, labels, split, filter, write."""
