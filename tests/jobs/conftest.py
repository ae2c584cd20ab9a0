"""The parts are tested on torch, with the runs and DICOM files that other tests make."""

import os
import sys
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")
sys.path += [str(Path(__file__).parents[1] / name) for name in ("training", "video")]
