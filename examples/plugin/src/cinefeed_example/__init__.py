"""A plug-in of each kind for cinefeed."""
