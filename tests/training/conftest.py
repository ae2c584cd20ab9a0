"""Training is tested on torch; JAX runs in a process of its own."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")
