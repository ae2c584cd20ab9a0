"""A run's network as a file that needs nothing of cinefeed: ONNX, or Keras' own format; tried before it is kept.

Keras' own way to ONNX (`model.export`) fails on PyTorch for the networks here: its exporter knows neither layer
normalisation nor 3-D convolutions (Keras 3.15). The newer exporter of PyTorch, which is asked here, does.
"""

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

import keras
import numpy as np

from cinefeed.errors import MissingExtraError, SettingError, TrainingError, did_you_mean
from cinefeed.feed.batch import Batch
from cinefeed.feed.targets import FeedSpec, TargetSpec
from cinefeed.files import write_atomically
from cinefeed.locks import write_lock
from cinefeed.models.parts import targets_of
from cinefeed.training.evaluate import load_model
from cinefeed.training.flow import build_feed, usable_rows
from cinefeed.training.run import WEIGHTS, read_run, spec_table
from cinefeed.training.scores import model_inputs

Format = Literal["onnx", "keras"]
Arrays = dict[str, Any]
TOLERANCE = 1e-3  # of what a score is measured in; sums in another order are some 1e-6 of it off
_SCALES = {"binary": 1.0, "multiclass": 1.0, "clip": 255.0}  # a regression's scores: its labels' standard deviation
_BATCHES = 2


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written, and how far its scores were from the model's own, on how many clips."""

    path: Path
    clips: int
    difference: float  # the largest, by output in its own unit
    any_batch: bool  # else the file takes one clip at a time


def export(run: str | Path, *, format: Format = "onnx", out: str | Path | None = None) -> Exported:
    """Write a run's network, with its best weights, as model.onnx or model.keras; by default into the run folder.

    What was written is run (by ONNX Runtime, or loaded by Keras alone) on clips of the run's own test part, and kept
    only where it gives the model's scores. An ONNX file says in its metadata `cinefeed` what goes in and comes out.
    Raises SettingError for what cannot be exported, MissingExtraError, and TrainingError where the scores differ.
    """
    if format not in get_args(Format):
        raise SettingError(f"format={format!r} is not a choice; {did_you_mean(format, get_args(Format))}")
    settings, spec, parts = read_run(run)
    path = Path(run) / f"model.{format}" if out is None else Path(out)
    if path.suffix != f".{format}":
        raise SettingError(f"{path} must end in .{format}")
    if format == "onnx":
        _need_onnx()
    alone = replace(
        settings, train=replace(settings.train, precision="float32")
    )  # half of it is for training, on a GPU
    model = load_model(alone, spec, Path(run) / WEIGHTS)
    part = next(rows for name in ("test", "val", "train") if len(rows := _rows(parts, name)))
    feed = build_feed(settings, _rows(parts, "train")).evaluation(usable_rows(part)[0], clips=1)
    batches = list(islice(feed, _BATCHES))
    found: list[Exported] = []

    def write(partial: Path) -> None:
        any_batch = True
        if format == "keras":
            model.save(partial)
            scores = _keras_scores(partial)
        else:
            any_batch = _write_onnx(partial, model, spec, example=model_inputs(model, batches[0]))
            scores = _onnx_scores(partial, any_batch=any_batch)
        difference = check_scores(model, scores, batches, spec)
        clips = sum(len(batch.ids) for batch in batches)
        found.append(Exported(path=path, clips=clips, difference=difference, any_batch=any_batch))

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_lock(path):
            write_atomically(path, write)
    except OSError as error:
        raise SettingError(f"{path} cannot be written: {error.strerror or error}") from error
    return found[0]


def check_scores(
    model: keras.Model, scores: Callable[[Arrays], Mapping[str, Any]], batches: list[Batch], spec: FeedSpec
) -> float:
    """Return the largest difference between a model's scores and those of `scores`, on some batches.

    Raises TrainingError where it is beyond what rounding does: a thousandth of the labels' standard deviation, or of
    a probability.
    """
    largest = 0.0
    for batch in batches:
        inputs = model_inputs(model, batch)
        wanted, given = _by_name(model.predict_on_batch(inputs)), scores(inputs)
        for name, target in _outputs(spec).items():
            both = (np.asarray(each[name], np.float64) for each in (given, wanted))
            difference = float(np.abs(np.subtract(*both)).max())
            allowed = TOLERANCE * _SCALES.get(target.task, target.scale)
            if not difference <= allowed:
                raise TrainingError(
                    f"the exported network gives other scores: {name} is up to {difference:.3g} off, {allowed:.3g} "
                    f"was allowed; it is not kept. Use the run as it is, with 'cinefeed predict'"
                )
            largest = max(largest, difference)
    return largest


def _outputs(spec: FeedSpec) -> dict[str, TargetSpec]:
    """Return the targets by the names that their scores have: in predictions, and in an ONNX file."""
    return {f"score_{each.name}" if spec.targets else "score": each for each in targets_of(spec)}


def _by_name(scores: Any) -> Mapping[str, Any]:
    return {f"score_{name}": each for name, each in scores.items()} if isinstance(scores, dict) else {"score": scores}


def _rows(parts: Any, name: str) -> Any:
    return parts.take(np.flatnonzero(np.asarray(parts.column("split").to_pylist()) == name))


def _need_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # type: ignore[import-untyped]  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(str(error.name), extra="onnx") from error
    if keras.config.backend() != "torch":
        raise SettingError(
            f"ONNX is written through PyTorch, and Keras is on {keras.config.backend()}; a run's weights serve any "
            f"backend: set KERAS_BACKEND=torch"
        )


def _write_onnx(path: Path, model: keras.Model, spec: FeedSpec, *, example: Arrays) -> bool:
    """Write a model as ONNX; return whether it takes batches of any size, or else of one clip."""
    import torch

    names = [each.name for each in model.inputs]
    outputs = list(_outputs(spec))

    class Flat(torch.nn.Module):  # ONNX has lists of inputs and outputs, in an order
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: Any) -> Any:
            scores = _by_name(self.model(dict(zip(names, inputs, strict=True)), training=False))
            return tuple(scores[name] for name in outputs)

    with _quietly():
        program, any_batch = _traced(Flat().eval(), [example[name] for name in names], model)
        found: Any = torch.onnx.export(program, dynamo=True, input_names=names, output_names=outputs, verbose=False)
    _name_batch(found.model.graph, "batch")
    for node in found.model.graph.all_nodes():
        node.metadata_props.clear()  # traces through this machine's folders
        node.doc_string = None
    found.model.metadata_props["cinefeed"] = json.dumps(spec_table(spec) | {"model": model.name})
    found.save(path, external_data=False)
    return any_batch


def _traced(module: Any, example: list[Any], model: keras.Model) -> tuple[Any, bool]:
    """Return a module's program as torch sees it, for batches of any size where that can be, else of one clip."""
    import torch

    def traced(size: int, *, dynamic: bool) -> Any:
        inputs = tuple(torch.as_tensor(np.repeat(each[:1], size, axis=0), device="cpu") for each in example)
        batch = torch.export.Dim("batch", min=1, max=2**16)
        shapes = (tuple({0: batch} for _ in inputs),) if dynamic else None
        with torch.no_grad():
            return torch.export.export(module.cpu(), inputs, dynamic_shapes=shapes, strict=False)

    recurrent = [each for each in model.layers if isinstance(each, keras.layers.RNN)]
    # Keras' loop over time with padding counts the clips of a batch, once for all; unrolled, it does not. A loop that
    # goes backwards cannot be unrolled, and is left to batches of one clip.
    for unroll in (False, True):
        for each in recurrent:
            each.unroll = unroll
        try:
            return traced(3, dynamic=True), True
        except Exception as error:  # of many kinds: whatever PyTorch could not follow
            last = error
        finally:
            for each in recurrent:
                each.unroll = False
        if not recurrent:
            break
    try:
        return traced(1, dynamic=False), False
    except Exception as error:
        raise SettingError(f"PyTorch cannot write {model.name} as ONNX: {error or last}") from error


def _name_batch(graph: Any, name: str) -> None:
    """Call the batch's size, which PyTorch numbers, by a name that a reader understands."""
    import onnx_ir

    for each in (*graph.inputs, *graph.outputs):
        if not isinstance(each.shape[0], int):
            each.shape = onnx_ir.Shape([name, *each.shape[1:]])


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep the exporters from telling what they try, and what they are without."""
    loggers = [logging.getLogger(name) for name in ("torch.export", "torch.onnx", "onnxscript", "onnx_ir")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)


def _onnx_scores(path: Path, *, any_batch: bool) -> Callable[[Arrays], Mapping[str, Any]]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]

    def scores(inputs: Arrays) -> Mapping[str, Any]:
        taken = {each.name: np.ascontiguousarray(inputs[each.name]) for each in session.get_inputs()}
        count = len(next(iter(taken.values())))
        some = [taken] if any_batch else [{name: x[i : i + 1] for name, x in taken.items()} for i in range(count)]
        every = [session.run(names, each) for each in some]
        return {name: np.concatenate(parts) for name, parts in zip(names, zip(*every, strict=True), strict=True)}

    return scores


def _keras_scores(path: Path) -> Callable[[Arrays], Mapping[str, Any]]:
    loaded = keras.saving.load_model(path, compile=False, safe_mode=True)
    return lambda inputs: _by_name(loaded.predict_on_batch(inputs))
