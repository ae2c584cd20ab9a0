"""Feed -> Keras, PyTorch. Each framework is imported by its own module alone."""

from cinefeed.pools import wait_passively as _wait_passively

_wait_passively()  # before torch is loaded by one of the adapters
