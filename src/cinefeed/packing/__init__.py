"""Packing of a data set into shards, which are then fed in place of the source (docs/packed.md)."""
