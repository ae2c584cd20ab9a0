"""Pretrained encoders of frames or clips in plain PyTorch, from local files alone: videos to features.

Importing this package imports no framework; `load_encoder` imports PyTorch and the library that it is asked for.
"""

from cinefeed.encoders.load import load_encoder
from cinefeed.encoders.preprocessing import Preprocessing
from cinefeed.encoders.user_functions import encoder_function

__all__ = ["Preprocessing", "encoder_function", "load_encoder"]
