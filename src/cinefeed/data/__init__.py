"""Rows and labels: manifests, splits, sampling, and what is wrong with a data set."""
