"""The run folder: what a training run was made from and what came of it, each file whole or absent.

settings.toml       every setting, defaults spelled out            history.csv          one line an epoch
versions.json       of the libraries; device, threads              best.weights.h5      of the best epoch
manifest.parquet    the rows used, with their part in `split`      predictions.parquet  val and test, clip by clip
spec.json           shapes, classes, label scale                   metrics.json         by part
labels.json         training labels, raw and as fed                feed_stats.json      where the feed's time went
clips.npz           a few augmented clips                          failures.json        files that failed, and why
flow.json           rows after each step                           balance.json         how often labels were drawn
checkpoint.npz      to go on from; gone when it is finished        log.jsonl            what happened when, line by line
pixels.json         how often each level is fed                    tensorboard/         where [train] asks for it
findings.json       what speaks against its scores: leaks, copies  run.json             how it ended; written last
"""

import json
import platform
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

import cinefeed
from cinefeed.config import Settings, read_settings, to_table, to_toml
from cinefeed.digests import append_digest, is_text_changed, json_with_digest, toml_with_digest
from cinefeed.errors import SettingError, TrainingError
from cinefeed.feed.covariates import Covariate
from cinefeed.feed.settings import FeedOptions, runtime_fields
from cinefeed.feed.targets import FeedSpec, TargetSpec
from cinefeed.files import PARTIAL, write_atomically
from cinefeed.locks import FOLDER_LOCK
from cinefeed.manifest.table import Manifest, Parts

WEIGHTS = "best.weights.h5"
CHECKPOINT = "checkpoint.npz"
TENSORBOARD = "tensorboard"
ASSESSMENT = "assessment.json"
FINDINGS = "findings.json"
_FILES = (
    "settings.toml versions.json manifest.parquet spec.json labels.json clips.npz flow.json balance.json history.csv "
    f"log.jsonl {WEIGHTS} {CHECKPOINT} {FINDINGS} predictions.parquet metrics.json {ASSESSMENT} feed_stats.json "
    "failures.json pixels.json worst.npz saliency.npz model.onnx model.keras run.json report.html"
).split()
_AUTHORS = ("methods.md",)  # who may have edited it; the page writes it anew where nobody has
_COPY_AGAIN = "copy the run again from where it was made, or train again with --overwrite (overwrite=True)"
_NO_MATTER = {"train": frozenset({"out"}), "feed": runtime_fields(FeedOptions)}  # they change no result


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a training run came to. `metrics` holds a table for each of "val" and "test"."""

    folder: Path
    metrics: Mapping[str, Mapping[str, Any]]
    epochs: int
    best_epoch: int  # counted from 1
    stopped: str  # why it ended
    seconds: float  # all that was done of it, also before it was broken off
    feed_verdict: str
    complete: bool = True  # False where it was asked to leave; the same command goes on


def check_out(out: str | Path, *, overwrite: bool = False) -> Path:
    """Return the run folder's path if a run may be written there; nothing is created. Call it under the folder's lock.

    A run that was broken off and has a checkpoint may go on there, with the same settings (see `check_same`).
    Raises SettingError where another run is there already (unless `overwrite`), where the folder holds other things
    and no run, or the folds of a cross-validation, and where it cannot be written.
    """
    folder = Path(out)
    if folder.is_dir():
        names = {each.name for each in folder.iterdir() if not each.name.startswith((PARTIAL, FOLDER_LOCK))}
        # a manifest, a page or predictions alone may be anybody's; "folds.json" is beside folds, which are runs within
        if "folds.json" in names or (names and not names & {"spec.json", "run.json"}):
            others = sorted(names - {*_FILES, *_AUTHORS, TENSORBOARD}) or sorted(names)
            raise SettingError(f"{folder} holds other files ({', '.join(others[:3])}); name a new folder")
        finished = "run.json" in names
        if finished:
            (folder / CHECKPOINT).unlink(missing_ok=True)  # left by a kill right after run.json
        if not overwrite and (finished or (WEIGHTS in names and CHECKPOINT not in names)):
            state = "a finished run" if finished else "a run that was broken off after some epochs"
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
    shutil.rmtree(folder / TENSORBOARD, ignore_errors=True)
    # By run.json a run is known to be finished, and by spec.json to be one: a kill in between must not leave a folder
    # that passes for finished, nor one that is nobody's.
    for name in ("run.json", *sorted({*_FILES} - {"run.json", "spec.json"}), "spec.json"):
        (folder / name).unlink(missing_ok=True)


def check_same(folder: Path, settings: Settings) -> None:
    """Raise SettingError where a broken-off run has other settings, and name those that differ.

    How many workers decode, and where the folder is seen from, may differ: no number comes of that.
    """
    there, here = (_flat(to_table(each)) for each in (settings_of_run(folder), settings))
    differing = [
        f"[{section}] {name} = {there.get((section, name))!r} there, {here.get((section, name))!r} here"
        for section, name in sorted({*there, *here})
        if there.get((section, name)) != here.get((section, name)) and name not in _NO_MATTER.get(section, ())
    ]
    if differing:
        raise SettingError(
            f"{folder} holds a run that was broken off, and its settings are others ({'; '.join(differing)}); go on "
            "with the same ones, name another folder, or begin anew with --overwrite (overwrite=True)"
        )


def check_same_rows(folder: Path, parts: Parts) -> None:
    """Raise SettingError where a broken-off run was begun with other rows, labels or parts, validation and test too."""
    there, here = Manifest.read(folder / "manifest.parquet"), parts.all
    if there.fingerprint != here.fingerprint:
        raise SettingError(
            f"{folder} holds a run that was broken off, and its rows are others ({len(there)} there, {len(here)} here, "
            "or they differ in a label or their part): the manifest has changed; go on with the one from before, name "
            "another folder, or begin anew with --overwrite (overwrite=True)"
        )


def _flat(table: Mapping[str, Any]) -> dict[tuple[str, str], Any]:
    """Return settings by section and name; what is a list, such as transforms, is one."""
    return {
        (section, name): value
        for section, values in table.items()
        for name, value in (values.items() if isinstance(values, Mapping) else [("", values)])
    }


def write_json(path: Path, data: object) -> None:
    """Write JSON atomically; numbers that are not finite become null, which JSON has."""
    shown = plain(data)
    flat = isinstance(shown, dict) and not any(isinstance(value, dict | list) for value in shown.values())
    text = json.dumps(shown, indent=2 if flat else None, ensure_ascii=False) + "\n"  # a line a label is no help
    write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def write_arrays(path: Path, **arrays: Any) -> None:
    """Write a compressed .npz atomically, with a digest at its end (see cinefeed.digests)."""

    def write(partial: Path) -> None:
        np.savez_compressed(partial, **arrays)
        append_digest(partial)

    write_atomically(path, write)


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


def check_run(folder: str | Path) -> None:
    """Raise SettingError where a folder lacks a file that a run's weights need; quick, before Keras is imported."""
    path = Path(folder)
    needed = ["settings.toml", "spec.json", "manifest.parquet", WEIGHTS]
    missing = [name for name in needed if not (path / name).is_file()]
    if missing:
        raise SettingError(
            f"{path} is no run folder: {', '.join(missing)} is missing; give the --out of a 'cinefeed train'"
        )


def read_run(folder: str | Path) -> tuple[Settings, FeedSpec, Manifest]:
    """Return what a run was made from: settings, the feed's spec, and the manifest with its column `split`.

    Raises TrainingError where a file is not as training wrote it.
    """
    check_run(folder)
    path = Path(folder)
    text = unchanged_text(path / "spec.json")
    try:
        spec = _spec(json.loads(text))
    except (ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{path / 'spec.json'} is damaged ({error}); {_COPY_AGAIN}") from error
    return settings_of_run(path), spec, Manifest.read(path / "manifest.parquet")


def _spec(spec: dict[str, Any]) -> FeedSpec:
    spec.pop("cinefeed sha256", None)  # a run of before has none
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
    return FeedSpec(**spec)


def spec_table(spec: FeedSpec) -> dict[str, Any]:
    """Return a feed's spec as plain data."""
    return {**asdict(spec), "dtype": np.dtype(spec.dtype).name}


def write_spec(folder: Path, spec: FeedSpec) -> None:
    """Write spec.json, with a digest."""
    text = json_with_digest(json.dumps(plain(spec_table(spec)), ensure_ascii=False))
    write_atomically(folder / "spec.json", lambda path: path.write_text(text, encoding="utf-8"))


def write_settings(folder: Path, settings: Settings) -> None:
    """Write settings.toml, with a digest."""
    text = toml_with_digest(to_toml(settings))
    write_atomically(folder / "settings.toml", lambda path: path.write_text(text, encoding="utf-8"))


def settings_of_run(folder: Path) -> Settings:
    """Return the settings of a run, or of folds. Raises TrainingError where settings.toml was changed."""
    path = folder / "settings.toml"
    unchanged_text(path)
    return read_settings(path)


def unchanged_text(path: Path) -> str:
    """Return the text of a file of a run. Raises TrainingError where its digest is another one."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise TrainingError(f"{path} is damaged ({error}); {_COPY_AGAIN}") from error
    if is_text_changed(text):
        on_purpose = "; if you have edited it on purpose, delete its last line" if path.suffix == ".toml" else ""
        raise TrainingError(
            f"{path} is not as training wrote it (its digest differs), and the run's numbers came of what it held; "
            f"{_COPY_AGAIN}{on_purpose}"
        )
    return text


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
        return "CPU"
    if backend == "jax":
        import jax

        return ", ".join(sorted({f"{each.device_kind} ({each.platform})" for each in jax.devices()}))
    return ", ".join(str(each) for each in keras.distribution.list_devices()) or "CPU"


def kept_assessment(folder: str | Path) -> dict[str, Any]:
    """Return what a run, or its folds together, were found worth (assessment.json); {} where nothing was kept."""
    path = Path(folder) / ASSESSMENT
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise SettingError(f"{path} cannot be read ({error}), so the run's thresholds are not known") from error
    return found


def kept_thresholds(folder: str | Path) -> dict[str, float]:
    """Return by target the thresholds that a run chose on its validation part, none where it kept none."""
    return {
        name: float(found["threshold"])
        for targets in kept_assessment(folder).get("parts", {}).values()
        for name, found in targets.items()
        if found.get("threshold_from") in ("val", "frozen")
    }
