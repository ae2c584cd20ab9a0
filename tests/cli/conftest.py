"""The command is tested on torch, in this process."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")
