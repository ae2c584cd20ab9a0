"""The same work in parts: `--shard 3/50` on many machines, then `cinefeed merge`."""
