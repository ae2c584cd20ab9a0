"""A finished run, used: `evaluate` measures a part or another manifest, `predict` scores any video."""

import errno
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import pyarrow as pa
import pyarrow.parquet as pq

from cinefeed.config import Settings
from cinefeed.errors import SettingError, TableError
from cinefeed.feed.feed import Feed
from cinefeed.feed.targets import FeedSpec
from cinefeed.manifest.scan import probe_videos
from cinefeed.manifest.table import Manifest
from cinefeed.sources.open import known_suffix
from cinefeed.training.flow import build_feed, choose_rows, usable_rows
from cinefeed.training.network import build_model
from cinefeed.training.run import WEIGHTS, read_run, write_atomically
from cinefeed.training.scores import measure, predictions_table, score

PARTS = ("train", "val", "test")
Tick = Callable[[int, int], object]  # clips done, of how many


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a run's weights are worth on some rows: the metrics, and the predictions that they come from."""

    part: str
    metrics: dict[str, Any]
    predictions: pa.Table
    failures: tuple[dict[str, str], ...] = ()


def evaluate(
    run: str | Path,
    *,
    part: str = "test",
    manifest: str | Path | None = None,
    out: str | Path | None = None,
    tick: Tick | None = None,
) -> Evaluation:
    """Measure a run's best weights on one of its parts, or on all rows of another manifest that carries the label.

    The other manifest is filtered as the run's own was (`[data.where]`). `out` keeps the predictions as Parquet.
    Raises SettingError where `run` is no run folder, and what a feed raises for rows or labels that do not serve.
    """
    if part not in PARTS:
        raise SettingError(f"part={part!r} is not a part; there are: {', '.join(PARTS)}")
    settings, model, trained, own = _load(run)
    if manifest is None:
        chosen, failures = usable_rows(own.where("split", [part]))
    else:
        chosen, failures = usable_rows(choose_rows(Manifest.read(manifest), settings))
        part = "external"
    feed = trained.evaluation(chosen)
    scores = score(model, feed, tick=_counting(tick, len(chosen)))
    table = predictions_table(feed.spec, scores, paths=chosen.shown().to_pylist(), part=part)
    _keep(table, out)
    return Evaluation(part=part, metrics=measure(feed.spec, scores), predictions=table, failures=tuple(failures))


def predict(
    run: str | Path,
    *,
    paths: Iterable[str | Path] = (),
    manifest: str | Path | None = None,
    out: str | Path | None = None,
    tick: Tick | None = None,
) -> Evaluation:
    """Score videos by path (files, or folders to search), or every row of a manifest; no label is needed.

    A file that is no video is left out and listed in `failures`, with the reason; one that breaks off is scored by
    the frames that decode. `out` keeps the predictions as Parquet.
    """
    _, model, trained, _ = _load(run)
    if manifest is not None:
        chosen, failures = usable_rows(Manifest.read(manifest))
    else:
        chosen, failures = _probed([Path(each) for each in paths])
    feed = trained.evaluation(chosen, labelled=False)
    scores = score(model, feed, tick=_counting(tick, len(chosen)))
    table = predictions_table(feed.spec, scores, paths=chosen.shown().to_pylist(), part="predict", labelled=False)
    _keep(table, out)
    return Evaluation(part="predict", metrics={}, predictions=table, failures=tuple(failures))


def _load(run: str | Path) -> tuple[Settings, keras.Model, Feed, Manifest]:
    """Return a run's settings, its model with the best weights, its training feed and its manifest."""
    settings, spec, own = read_run(run)
    model = load_model(settings, spec, Path(run) / WEIGHTS)
    return settings, model, build_feed(settings, own.where("split", ["train"])), own


def load_model(settings: Settings, spec: FeedSpec, weights: Path) -> keras.Model:
    """Return the network of a run with weights from a file; raises SettingError where the two do not fit."""
    model = build_model(settings, spec, trained=True)
    try:
        model.load_weights(weights)
    except (ValueError, OSError) as error:
        raise SettingError(f"{weights} does not fit the model that settings.toml describes: {error}") from error
    return model


def _probed(paths: list[Path]) -> tuple[Manifest, list[dict[str, str]]]:
    """Return a manifest of the videos at some paths, each probed once, and those files that are damaged or none.

    Raises TableError where no frame of any can be read.
    """
    files: list[Path] = []
    failures: list[dict[str, str]] = []
    for path in paths:
        inside = [each for each in path.rglob("*") if each.is_file() and known_suffix(each)] if path.is_dir() else []
        files += sorted(inside) or [path]
    rows = []
    for path in files:
        try:
            found = path.stat()
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, "a folder without a video")
            rows.append({"path": str(path.absolute()), "size_bytes": found.st_size, "mtime_ns": found.st_mtime_ns})
        except OSError as error:
            failures.append({"id": str(path), "path": str(path), "error": error.strerror or str(error)})
    if not rows:
        reasons = "; ".join(f"{each['path']}: {each['error']}" for each in failures[:3])
        raise TableError(f"there is no video to predict ({reasons or 'none was named'}); name files or folders")
    named = Manifest.from_table(pa.Table.from_pylist(rows))
    table = probe_videos(named.table, root=named.root, verify="decode", workers=None, out=None, progress=None)
    chosen, damaged = usable_rows(Manifest.from_table(table, root=named.root))
    return chosen, failures + damaged


def _counting(tick: Tick | None, total: int) -> Callable[[int], object] | None:
    if tick is None:
        return None
    done = 0

    def count(clips: int) -> None:
        nonlocal done
        done += clips
        tick(done, total)

    return count


def _keep(table: pa.Table, out: str | Path | None) -> None:
    if out is not None:
        path = Path(out)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, lambda partial: pq.write_table(table, partial))
        except OSError as error:
            raise SettingError(f"{path} cannot be written: {error.strerror}; name another --out") from error
