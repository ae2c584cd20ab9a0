"""Encoded video through FFmpeg: the only package that imports `av`."""
