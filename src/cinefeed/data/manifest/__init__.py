"""Manifests: tables with one row per sample, their scan, labels, splits and files."""
