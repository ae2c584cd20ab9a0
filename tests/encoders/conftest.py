"""Videos, and the optional libraries of pretrained networks."""

import importlib

import numpy as np
import pyarrow as pa
import pytest

from cinefeed.data.manifest.manifest import Manifest

COUNTS = (20, 9, 33)  # frames of the videos


@pytest.fixture
def videos(tmp_path):
    """Three colour videos of 20, 9 and 33 frames of 32 x 32 at 25 Hz."""
    folder = tmp_path / "videos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number, count in enumerate(COUNTS):
        np.save(folder / f"{number}.npy", rng.integers(0, 256, (count, 32, 32, 3), np.uint8))
    names = [f"{number}.npy" for number in range(len(COUNTS))]
    table = pa.table({"path": names, "age": [30.0, 40.0, 50.0], "patient": names})
    manifest = Manifest.scan(folder, labels=table, out=tmp_path / "m.parquet", progress=False)
    steps = pa.array([0.04] * len(manifest))
    place = manifest.table.column_names.index("step_seconds")
    timed = Manifest(manifest.table.set_column(place, "step_seconds", steps), root=manifest.root)
    timed.write(tmp_path / "m.parquet")
    return timed


@pytest.fixture
def library():
    """Return a function that returns an optional library by name, or skips the test."""

    def import_library(name):
        if name == "torchvision":
            define_operators()
        try:
            return importlib.import_module(name)
        except ImportError as error:
            pytest.skip(f"{name} is not installed ({error}); 'cinefeed[pretrained]' has it")

    return import_library


_operators = []


def define_operators():
    """Declare the operators without which `import torchvision` fails, if its compiled part does not fit this torch.

    A torchvision for CUDA does not load its compiled part beside a CPU build of torch. Its networks are pure Python.
    """
    import torch

    try:
        import torchvision  # noqa: F401
    except ImportError:
        return
    except RuntimeError:
        _operators.append(torch.library.Library("torchvision", "DEF"))  # it ends with the object
        for name in ("nms", "qnms"):
            _operators[-1].define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
