"""Sample scale: what happens to one clip."""
