"""Reading of packed shards: videos inside an uncompressed tar, opened in place (docs/packed.md)."""
