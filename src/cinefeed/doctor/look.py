"""Versions, cores, memory, backends and threads of this machine as plain data."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from math import isfinite
from pathlib import Path
from typing import Any

import cv2
import numba
import pyarrow as pa

import cinefeed
from cinefeed.core.cores import quota_cores, usable_cores
from cinefeed.core.errors import KERAS_BACKENDS
from cinefeed.core.keras_backend import keras_backend
from cinefeed.core.kernel_cache import cache_folder
from cinefeed.core.plugins import plugin_names, plugin_versions
from cinefeed.core.pools import is_passive
from cinefeed.video.extras import EXTRAS, missing_packages
from cinefeed.video.ffmpeg.decoder import decoder_choice

_DISTRIBUTIONS = (
    "numpy av opencv-python-headless numba llvmlite pyarrow scikit-learn threadpoolctl keras torch jax tensorflow "
    "pydicom imagecodecs nibabel h5py onnx onnxruntime matplotlib jinja2 tensorboard"
).split()
_REPORT = {"matplotlib": "matplotlib", "jinja2": "jinja2"}  # modules and their packages
_TIMEOUT_SECONDS = 120  # for the import of a framework; on a slow network file system it takes some tens of seconds
# Runs in a separate process, so that a damaged installation or a hanging driver affects only that process, and JAX
# allocates no GPU memory in the calling process.
_EXAMINE_FRAMEWORK = """
import json, sys
name = sys.argv[1]
if name == "torch":
    import torch
    gpus = [torch.cuda.get_device_name(each) for each in range(torch.cuda.device_count())]
    gpus += ["Apple GPU (mps)"] if torch.backends.mps.is_available() else []
    about = {"threads": torch.get_num_threads(), "built_for_cuda": torch.version.cuda, "gpus": gpus}
elif name == "jax":
    import jax
    about = {"gpus": [each.device_kind for each in jax.devices() if each.platform != "cpu"]}
else:
    import tensorflow
    about = {"gpus": [each.name for each in tensorflow.config.list_physical_devices("GPU")]}
import sklearn.utils.extmath
from threadpoolctl import threadpool_info
about["pools"] = [
    {"library": pool["prefix"], "for": pool["user_api"], "threads": pool["num_threads"]} for pool in threadpool_info()
]
print(json.dumps(about))
"""


def examine(*, frameworks: Sequence[str] = KERAS_BACKENDS) -> dict[str, Any]:
    """Return properties of this machine and installation, as plain data for JSON. It takes some seconds.

    versions: of Python, cinefeed and related libraries; None if not installed
    decoder: the decoder for encoded video, and the reason for it
    plugins: versions of the packages with plug-ins, and the names of the plug-ins by kind
    formats: missing packages for reading a format or writing reports, by extra; [] if none is missing
    cores: of the machine, allowed for the process, the quota of its control groups (None: no quota), used by cinefeed,
    and the load average of the last minute
    shared_memory: whether worker processes can share memory, and free memory in bytes
    cache: folder of compiled code, None if it is not writable
    keras: whether it is installed, and the backend that the command line uses
    backends: GPUs and threads of the installed `frameworks`, or the error of their import
    threads: of each pool in this process, and whether OpenMP threads wait passively

    >>> examine(frameworks=())["versions"]["cinefeed"] == cinefeed.__version__
    True
    """
    quota = quota_cores()
    return {
        "versions": {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "cinefeed": cinefeed.__version__,
            **{name: _version(name) for name in _DISTRIBUTIONS},
        },
        "plugins": {"packages": plugin_versions(), "names": plugin_names()},
        "decoder": decoder_choice()._asdict(),
        "formats": {
            **{extra.name: missing_packages(extra) for extra in EXTRAS.values()},
            "report": [package for module, package in _REPORT.items() if find_spec(module) is None],
        },
        "cores": {
            "machine": os.cpu_count(),
            "allowed": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "quota": quota if isfinite(quota) else None,
            "used": usable_cores(),
            "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        },
        "shared_memory": {"processes": _shares_memory(), "free_bytes": _free_bytes()},
        "cache": {"folder": None if cache_folder() is None else str(cache_folder())},
        "keras": {"installed": find_spec("keras") is not None, "backend": keras_backend()},
        "gpu_device": any(Path(path).exists() for path in ("/dev/nvidia0", "/dev/kfd")),
        "backends": {name: _framework(name) for name in frameworks if find_spec(name) is not None},
        "threads": {
            "opencv": cv2.getNumThreads(),
            "numba": numba.config.NUMBA_NUM_THREADS,
            "pyarrow": pa.cpu_count(),
            "passive_waiting": is_passive(),
        },
    }


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _framework(name: str) -> dict[str, Any]:
    """Return a framework's GPUs and threads, or {"error": ...}."""
    environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", _EXAMINE_FRAMEWORK, name]
    options: dict[str, Any] = {"capture_output": True, "text": True, "stdin": subprocess.DEVNULL}
    try:
        process = subprocess.run(command, env=environment, timeout=_TIMEOUT_SECONDS, **options)
        about: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
        return about
    except subprocess.TimeoutExpired:
        return {"error": f"its import took more than {_TIMEOUT_SECONDS} s"}
    except (IndexError, ValueError):
        return {"error": (process.stderr.strip().splitlines() or [f"exit code {process.returncode}"])[-1]}


def _shares_memory() -> bool:
    """Return whether anonymous memory for worker processes can be created."""
    if not hasattr(os, "memfd_create"):
        return False
    try:
        os.close(os.memfd_create("cinefeed"))
    except OSError:  # a sandbox forbids it
        return False
    return True


def _free_bytes() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None
