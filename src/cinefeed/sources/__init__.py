"""A file -> its facts, and the frames asked for. One file a format family."""
