"""Threads and processes that make clips."""
