"""The run folder: what a training run was made from and what came of it, each file whole or absent.

settings.toml       every setting, defaults spelled out            history.csv          one line an epoch
versions.json       of cinefeed, Python, the libraries; device     best.weights.h5      of the best epoch
manifest.parquet    the rows used, with their part in `split`      predictions.parquet  val and test, clip by clip
spec.json           shapes, classes, label scale                   metrics.json         by part
labels.json         training labels, raw and as fed                feed_stats.json      where the feed's time went
clips.npz           a few augmented clips                          failures.json        files that failed, and why
flow.json           rows after each step                           balance.json         how often labels were drawn
run.json            how it ended; written last
"""

import json
import platform
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

import cinefeed
from cinefeed.config import Settings, read_settings
from cinefeed.errors import SettingError
from cinefeed.feed.covariates import Covariate
from cinefeed.feed.targets import FeedSpec, TargetSpec
from cinefeed.manifest.table import Manifest

WEIGHTS = "best.weights.h5"
_FILES = (
    "settings.toml versions.json manifest.parquet spec.json labels.json clips.npz flow.json balance.json history.csv "
    f"{WEIGHTS} predictions.parquet metrics.json feed_stats.json failures.json run.json report.html"
).split()


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a training run came to. `metrics` holds a table for each of "val" and "test"."""

    folder: Path
    metrics: Mapping[str, Mapping[str, Any]]
    epochs: int
    best_epoch: int  # counted from 1
    stopped: str  # why it ended
    seconds: float
    feed_verdict: str


def check_out(out: str | Path, *, overwrite: bool = False) -> Path:
    """Return the run folder's path if a run may be written there; nothing is created.

    Raises SettingError where a run is there already (unless `overwrite`), where the folder holds other things, and
    where it cannot be written.
    """
    folder = Path(out)
    if folder.is_dir():
        names = {each.name for each in folder.iterdir()}
        if names - set(_FILES) and not names & {"settings.toml", "run.json"}:
            raise SettingError(
                f"{folder} holds other files ({', '.join(sorted(names - set(_FILES))[:3])}); name a new folder"
            )
        if not overwrite and names & {"run.json", WEIGHTS}:
            state = "a finished run" if "run.json" in names else "a run that was broken off after some epochs"
            raise SettingError(f"{folder} holds {state}; name another folder, or pass --overwrite (overwrite=True)")
    parent = folder
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    try:
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as error:
        raise SettingError(f"{folder} cannot be written: {error.strerror} ({parent}); name another folder") from error
    return folder


def clear(folder: Path) -> None:
    """Create the run folder, or take the files of an earlier run out of it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in _FILES:
        (folder / name).unlink(missing_ok=True)


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make the file beside its place, then move it there: a reader sees all of it or nothing.

    The name that `write` is given keeps the suffixes, which some writers go by.
    """
    partial = path.with_name(f".partial.{path.name}")
    try:
        write(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, data: object) -> None:
    """Write JSON atomically; numbers that are not finite become null, which JSON has."""
    shown = plain(data)
    flat = isinstance(shown, dict) and not any(isinstance(value, dict | list) for value in shown.values())
    text = json.dumps(shown, indent=2 if flat else None, ensure_ascii=False) + "\n"  # a line a label is no help
    write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def plain(data: Any) -> Any:
    """Return data as JSON takes it: NumPy values as Python's own, None for a number that is not finite."""
    if isinstance(data, Mapping):
        return {str(key): plain(value) for key, value in data.items()}
    if isinstance(data, np.ndarray):
        return plain(data.tolist())
    if isinstance(data, list | tuple):
        return [plain(value) for value in data]
    if isinstance(data, np.generic):
        return plain(data.item())
    if isinstance(data, float):
        return data if np.isfinite(data) else None
    return data


def read_run(folder: str | Path) -> tuple[Settings, FeedSpec, Manifest]:
    """Return what a run was made from: settings, the feed's spec, and the manifest with its column `split`."""
    path = Path(folder)
    needed = ["settings.toml", "spec.json", "manifest.parquet", WEIGHTS]
    missing = [name for name in needed if not (path / name).is_file()]
    if missing:
        raise SettingError(
            f"{path} is no run folder: {', '.join(missing)} is missing; give the --out of a 'cinefeed train'"
        )
    spec = json.loads((path / "spec.json").read_text(encoding="utf-8"))
    spec.update(
        clip_shape=tuple(spec["clip_shape"]),
        classes=tuple(spec["classes"]),
        dtype=np.dtype(str(spec["dtype"])),
        views=tuple(spec.get("views", ())),
        targets=tuple(TargetSpec(**each | {"classes": tuple(each["classes"])}) for each in spec.get("targets", [])),
        covariates=tuple(
            Covariate(**each | {"categories": tuple(each["categories"])}) for each in spec.get("covariates", [])
        ),
    )
    return read_settings(path / "settings.toml"), FeedSpec(**spec), Manifest.read(path / "manifest.parquet")


def spec_table(spec: FeedSpec) -> dict[str, Any]:
    """Return a feed's spec as plain data, for spec.json."""
    return {**asdict(spec), "dtype": np.dtype(spec.dtype).name}


def versions() -> dict[str, str]:
    """Return the versions of all that has a say in the numbers, and the device."""
    import keras

    backend = keras.config.backend()
    packages = ["numpy", "av", "opencv-python-headless", "numba", "pyarrow", "scikit-learn", "keras", backend]
    found = {"cinefeed": cinefeed.__version__, "python": platform.python_version(), "platform": platform.platform()}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # built from source, under another name
            found[name] = str(getattr(sys.modules.get(name), "__version__", "unknown"))
    return {**found, "backend": backend, "device": device()}


def device() -> str:
    """Return the name of the device that Keras computes on."""
    import keras

    backend = keras.config.backend()
    if backend == "torch":
        import torch

        if torch.cuda.is_available():
            return f"{torch.cuda.get_device_name()} (cuda)"
        if torch.backends.mps.is_available():
            return "Apple GPU (mps)"
        return f"CPU, {torch.get_num_threads()} threads"
    if backend == "jax":
        import jax

        return ", ".join(sorted({f"{each.device_kind} ({each.platform})" for each in jax.devices()}))
    return ", ".join(str(each) for each in keras.distribution.list_devices()) or "CPU"
