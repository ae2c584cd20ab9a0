"""Adapters of a Feed for Keras, PyTorch and JAX. Each framework is imported by its own module only."""

from cinefeed.core.pools import wait_passively as _wait_passively

_wait_passively()  # before torch is loaded by one of the adapters
