"""The run folder: inputs and results of a training run; each file is complete or absent.

settings.toml       all settings, defaults included                history.csv          one line per epoch
versions.json       of the libraries; device, threads              best.weights.h5      of the best epoch
manifest.parquet    the rows, with their part in `split`           predictions.parquet  val and test, a row per clip
spec.json           shapes, classes, label scale                   metrics.json         by part
labels.json         training labels, raw and as drawn              feed_stats.json      time of the feed by stage
clips.npz           a few augmented clips                          failures.json        files that failed, with reasons
flow.json           number of rows after each step                 balance.json         how often labels were drawn
checkpoint.npz      to resume from; deleted at the end             log.jsonl            events with their times
pixels.json         histogram of the pixel values                  tensorboard/         if [train] tensorboard = true
findings.json       leaks and copies between the parts             baselines.json       what simple models score, and
run.json            the result; written last                                            baselines.parquet, .npz
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
from cinefeed.config.recipe import AUTO
from cinefeed.core.digests import append_digest, is_text_changed, json_with_digest, toml_with_digest
from cinefeed.core.errors import SettingError, TrainingError, listed_in_words
from cinefeed.core.files import PARTIAL, write_atomically, write_errors
from cinefeed.core.locks import FOLDER_LOCK
from cinefeed.core.plugins import plugin_versions
from cinefeed.data.manifest.manifest import Manifest, Parts
from cinefeed.feed.covariates import Covariate
from cinefeed.feed.labels import FeedSpec, TargetSpec
from cinefeed.feed.settings import FeedOptions, runtime_fields

WEIGHTS = "best.weights.h5"
CHECKPOINT = "checkpoint.npz"
TENSORBOARD = "tensorboard"
ASSESSMENT = "assessment.json"
BASELINES = "baselines.json"
FINDINGS = "findings.json"
_FILES = (
    "settings.toml versions.json manifest.parquet spec.json labels.json clips.npz flow.json balance.json history.csv "
    f"log.jsonl {WEIGHTS} {CHECKPOINT} {FINDINGS} predictions.parquet metrics.json {ASSESSMENT} feed_stats.json "
    f"{BASELINES} baselines.parquet baselines.npz "
    "failures.json pixels.json worst.npz saliency.npz model.onnx model.keras run.json report.html"
).split()
_EDITABLE = ("methods.md", "README.md")  # authors may edit them; report and export rewrite them if nobody has
READER_PACKAGES = ("pydicom", "imagecodecs", "h5py", "nibabel")  # optional
_COPY_AGAIN = "copy the run again from its original folder, or train again with --overwrite (overwrite=True)"
_NO_MATTER = {"train": frozenset({"out"}), "feed": runtime_fields(FeedOptions)}  # these do not change results


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """Result of a training run. `metrics` holds the metrics of the parts "val" and "test"."""

    folder: Path
    metrics: Mapping[str, Mapping[str, Any]]
    epochs: int
    best_epoch: int  # counted from 1
    monitor: str  # column of history.csv by which it is the best
    stopped: str  # why training ended
    seconds: float  # including earlier processes of a resumed run
    feed_verdict: str
    complete: bool = True  # False if training stopped on request; the same command resumes it


def check_out(out: str | Path, *, overwrite: bool = False) -> Path:
    """Return the run folder's path if a run may be written there; creates nothing. Call it under the folder's lock.

    An interrupted run with a checkpoint may be resumed there, with the same settings (see `check_same`).
    Raises SettingError if the folder holds another run (unless `overwrite`), files that are not of a run, or the folds
    of a cross-validation, and if it cannot be written.
    """
    folder = Path(out)
    if folder.is_dir():
        names = {each.name for each in folder.iterdir() if not each.name.startswith((PARTIAL, FOLDER_LOCK))}
        # a manifest, a page or predictions alone may be of another origin; "folds.json" marks a folder of several runs
        if "folds.json" in names or (names and not names & {"spec.json", "run.json"}):
            others = sorted(names - {*_FILES, *_EDITABLE, TENSORBOARD}) or sorted(names)
            raise SettingError(f"{folder} holds other files ({', '.join(others[:3])}); name a new folder")
        finished = "run.json" in names
        if finished:
            (folder / CHECKPOINT).unlink(missing_ok=True)  # left by a kill right after run.json
        if not overwrite and (finished or (WEIGHTS in names and CHECKPOINT not in names)):
            state = "a finished run" if finished else "an interrupted run without a checkpoint"
            raise SettingError(f"{folder} holds {state}; name another folder, or pass --overwrite (overwrite=True)")
    parent = folder
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    with write_errors(folder, advice=f"name another folder than one in {parent}"), tempfile.TemporaryFile(dir=parent):
        pass
    return folder


def clear(folder: Path) -> None:
    """Create the run folder, or delete the files of an earlier run in it."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / TENSORBOARD, ignore_errors=True)
    # run.json marks a finished run and spec.json a run folder: a kill in between must not leave a folder that looks
    # finished, nor one that is not recognised as a run.
    for name in ("run.json", *sorted({*_FILES} - {"run.json", "spec.json"}), "spec.json"):
        (folder / name).unlink(missing_ok=True)


def check_same(folder: Path, settings: Settings) -> None:
    """Raise SettingError if an interrupted run has other settings, and name those that differ.

    The number of workers and the path of the folder may differ: they do not change results. A setting that is "auto"
    is compared when it is chosen.
    """
    saved, current = settings_of_run(folder), settings
    differences = [
        f"[{section}] {name} = {there!r} there, {here!r} here"
        for (section, name), (there, here) in sorted(setting_differences(saved, current).items())
        if name not in _NO_MATTER.get(section, ())
    ]
    if differences:
        raise SettingError(
            f"{folder} holds an interrupted run with other settings ({'; '.join(differences)}); resume with the same "
            "settings, choose another folder, or start over with --overwrite (overwrite=True)"
        )


def setting_differences(saved: Settings, current: Settings) -> dict[tuple[str, str], tuple[Any, Any]]:
    """Return the settings that differ, by section and name; not those that are "auto" and that a run has chosen."""
    there, here = (_flatten(to_table(each)) for each in (saved, current))
    ignored = {("train", name) for name in ("epochs", "learning_rate") if here["train", name] == AUTO}
    if here["model", "name"] == AUTO:
        ignored |= {key for key in {*there, *here} if key[0] == "model"}
    names = [name for name in {**here, **there} if name not in ignored]  # in the order of the sections
    return {name: (there.get(name), here.get(name)) for name in names if there.get(name) != here.get(name)}


def check_same_rows(folder: Path, parts: Parts) -> None:
    """Raise SettingError if rows, labels or parts of an interrupted run differ, also of validation and test."""
    saved, current = Manifest.read(folder / "manifest.parquet"), parts.all
    if saved.fingerprint != current.fingerprint:
        raise SettingError(
            f"{folder} holds an interrupted run with other rows ({len(saved)} there, {len(current)} here, or they "
            "differ in a label or their part): the manifest has changed; resume with the earlier manifest, choose "
            "another folder, or start over with --overwrite (overwrite=True)"
        )


def _flatten(table: Mapping[str, Any]) -> dict[tuple[str, str], Any]:
    """Return settings by section and name; a section that is a list, such as transforms, is one setting."""
    return {
        (section, name): value
        for section, values in table.items()
        for name, value in (values.items() if isinstance(values, Mapping) else [("", values)])
    }


def write_json(path: Path, data: object) -> None:
    """Write JSON atomically; numbers that are not finite become null."""
    content = plain(data)
    is_flat = isinstance(content, dict) and not any(isinstance(value, dict | list) for value in content.values())
    text = json.dumps(content, indent=2 if is_flat else None, ensure_ascii=False) + "\n"  # no line per label
    write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def write_arrays(path: Path, **arrays: Any) -> None:
    """Write a compressed .npz atomically, with a digest at its end (see cinefeed.core.digests)."""

    def write(partial: Path) -> None:
        np.savez_compressed(partial, **arrays)
        append_digest(partial)

    write_atomically(path, write)


def plain(data: Any) -> Any:
    """Return data in types that JSON supports: NumPy values as Python values, numbers that are not finite as None."""
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
    """Raise SettingError if a file that is needed to load a run is missing; does not import Keras."""
    path = Path(folder)
    required = ["settings.toml", "spec.json", "manifest.parquet", WEIGHTS]
    missing = [name for name in required if not (path / name).is_file()]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise SettingError(
            f"{path} is not a run folder: {listed_in_words(missing)} {verb} missing; pass the --out of a "
            "'cinefeed train'"
        )


def read_run(folder: str | Path) -> tuple[Settings, FeedSpec, Manifest]:
    """Return settings, feed spec and manifest (with its column `split`) of a run.

    Raises TrainingError if a file differs from what training wrote.
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
    spec.pop("cinefeed sha256", None)
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
    """Return the settings of a run, or of folds. Raises TrainingError if settings.toml was changed."""
    path = folder / "settings.toml"
    unchanged_text(path)
    return read_settings(path)


def unchanged_text(path: Path) -> str:
    """Return the text of a file of a run. Raises TrainingError if it does not match its digest."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise TrainingError(f"{path} is damaged ({error}); {_COPY_AGAIN}") from error
    if is_text_changed(text):
        advice = "; if you edited it on purpose, delete its last line" if path.suffix == ".toml" else ""
        raise TrainingError(
            f"{path} is not as training wrote it (its digest differs), so it may not match the run's results; "
            f"{_COPY_AGAIN}{advice}"
        )
    return text


def versions() -> dict[str, str]:
    """Return the versions of all libraries that affect results, and the device.

    Those of readers and of plug-ins are listed if they are installed.
    """
    import keras

    backend = keras.config.backend()
    packages = ["numpy", "av", "opencv-python-headless", "numba", "pyarrow", "scikit-learn", "keras", backend]
    library_versions = {
        "cinefeed": cinefeed.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    for name in [*packages, *READER_PACKAGES]:
        try:
            library_versions[name] = version(name)
        except PackageNotFoundError:
            if name in READER_PACKAGES:
                continue
            # built from source, under another name
            library_versions[name] = str(getattr(sys.modules.get(name), "__version__", "unknown"))
    return {**library_versions, **plugin_versions(), "backend": backend, "device": device()}


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

        if jax.default_backend() == "cpu":
            return "CPU"
        return ", ".join(sorted({f"{each.device_kind} ({each.platform})" for each in jax.devices()}))
    return ", ".join(str(each) for each in keras.distribution.list_devices()) or "CPU"


def read_assessment(folder: str | Path) -> dict[str, Any]:
    """Return the assessment of a run or of all folds (assessment.json); {} if there is none."""
    path = Path(folder) / ASSESSMENT
    try:
        assessment: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise SettingError(
            f"{path} cannot be read ({error}), so the run's thresholds are unknown; {_COPY_AGAIN}"
        ) from error
    return assessment


def read_baselines(folder: str | Path) -> dict[str, Any]:
    """Return the comparison of a run, or of all folds, with baselines (baselines.json); {} if there is none."""
    path = Path(folder) / BASELINES
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def read_thresholds(folder: str | Path) -> dict[str, float]:
    """Return by target the thresholds that a run selected on its validation part; {} if it has none."""
    return {
        name: float(result["threshold"])
        for targets in read_assessment(folder).get("parts", {}).values()
        for name, result in targets.items()
        if result.get("threshold_from") in ("val", "frozen")
    }


def read_rule_thresholds(folder: str | Path) -> dict[str, dict[str, float]]:
    """Return by target the threshold of each rule, such as {"f1": 0.4, "youden": 0.3}; {} if the run has none."""
    return {
        name: {point["rule"]: float(point["threshold"]) for point in result["operating_points"]}
        for targets in read_assessment(folder).get("parts", {}).values()
        for name, result in targets.items()
        if result.get("operating_points")
    }
