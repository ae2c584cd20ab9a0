"""Export of a run's network to a file that does not need cinefeed: ONNX or Keras' own format, verified after writing.

Keras' own ONNX export (`model.export`) fails on PyTorch for these networks: its exporter supports neither layer
normalisation nor 3-D convolutions (Keras 3.15). PyTorch's newer exporter, used here, supports both.
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

import numpy as np

from cinefeed.core.errors import MissingExtraError, SettingError, TrainingError, did_you_mean
from cinefeed.core.files import write_atomically, write_errors
from cinefeed.core.locks import write_lock
from cinefeed.feed.batch import Batch
from cinefeed.feed.labels import FeedSpec, TargetSpec
from cinefeed.models.parts import targets_of
from cinefeed.training.keras_module import keras
from cinefeed.training.predictions import model_inputs
from cinefeed.training.run import WEIGHTS, read_run, spec_table
from cinefeed.training.setup import build_feed, usable_rows
from cinefeed.training.trained import load_model

Format = Literal["onnx", "keras"]
Arrays = dict[str, Any]
TOLERANCE = 1e-3  # relative to the scale of a score; another order of summation changes scores by some 1e-6 of it
_SCALES = {"binary": 1.0, "multiclass": 1.0, "clip": 255.0}  # of a regression: the standard deviation of its labels
_BATCHES = 2


@dataclass(frozen=True, kw_only=True)
class Exported:
    """Result of `export`: the file, the number of clips it was verified on, and the largest difference of scores."""

    path: Path
    clips: int
    difference: float  # in the unit of the output
    any_batch: bool  # False: the file accepts one clip at a time


def export(run: str | Path, *, format: Format = "onnx", out: str | Path | None = None) -> Exported:
    """Write a run's network with its best weights as model.onnx or model.keras, by default into the run folder.

    The new file is run (by ONNX Runtime, or loaded by Keras) on clips of the run's test part, and kept only if its
    scores equal those of the model. The metadata `cinefeed` of an ONNX file describes inputs and outputs. To load
    model.keras of a `pretrained` network, cinefeed and the file of the encoder's weights are needed.

    Raises SettingError for a network that cannot be exported, MissingExtraError for a missing package, and
    TrainingError if the scores differ.
    """
    if format not in get_args(Format):
        raise SettingError(f"format={format!r} is not a choice; {did_you_mean(format, get_args(Format))}")
    settings, spec, parts = read_run(run)
    path = Path(run) / f"model.{format}" if out is None else Path(out)
    if path.suffix != f".{format}":
        raise SettingError(f"{path} must end in .{format}")
    if format == "onnx":
        _need_onnx()
    # mixed precision is for training on a GPU
    settings_float32 = replace(settings, train=replace(settings.train, precision="float32"))
    model = load_model(settings_float32, spec, Path(run) / WEIGHTS)
    part = next(rows for name in ("test", "val", "train") if len(rows := _rows(parts, name)))
    feed = build_feed(settings, _rows(parts, "train")).evaluation(usable_rows(part)[0], clips=1)
    batches = list(islice(feed, _BATCHES))
    results: list[Exported] = []

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
        results.append(Exported(path=path, clips=clips, difference=difference, any_batch=any_batch))

    with write_errors(path, advice="choose another path with out (--out)"), write_lock(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, write)
    return results[0]


def check_scores(
    model: keras.Model, scores: Callable[[Arrays], Mapping[str, Any]], batches: list[Batch], spec: FeedSpec
) -> float:
    """Return the largest difference between a model's scores and those of the function `scores` on some batches.

    Raises TrainingError if it exceeds rounding errors: 0.001 of the labels' standard deviation, or a probability of
    0.001.
    """
    largest = 0.0
    for batch in batches:
        inputs = model_inputs(model, batch)
        model_scores, file_scores = _by_name(model.predict_on_batch(inputs)), scores(inputs)
        for name, target in _outputs(spec).items():
            both = (np.asarray(scores_by_name[name], np.float64) for scores_by_name in (file_scores, model_scores))
            difference = float(np.abs(np.subtract(*both)).max())
            limit = TOLERANCE * _SCALES.get(target.task, target.scale)
            if not difference <= limit:
                raise TrainingError(
                    f"the exported network gives other scores: {name} differs by up to {difference:.3g}, the limit is "
                    f"{limit:.3g}, so the file is deleted; use the run itself, with 'cinefeed predict'"
                )
            largest = max(largest, difference)
    return largest


def _outputs(spec: FeedSpec) -> dict[str, TargetSpec]:
    """Return the targets by the names of their scores, as in predictions and in an ONNX file."""
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
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), extra="onnx") from error
    if keras.config.backend() != "torch":
        raise SettingError(
            f"ONNX export needs PyTorch, and Keras is on {keras.config.backend()}; set KERAS_BACKEND=torch: the "
            f"weights of a run work on any backend"
        )


def _write_onnx(path: Path, model: keras.Model, spec: FeedSpec, *, example: Arrays) -> bool:
    """Write a model as ONNX; return True if it accepts batches of any size, False if of one clip only."""
    import torch

    names = [each.name for each in model.inputs]
    outputs = list(_outputs(spec))

    class Flat(torch.nn.Module):  # ONNX has ordered lists of inputs and outputs
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: Any) -> Any:
            scores = _by_name(self.model(dict(zip(names, inputs, strict=True)), training=False))
            return tuple(scores[name] for name in outputs)

    with _without_messages():
        program, any_batch = _trace(Flat().eval(), [example[name] for name in names], model)
        program_onnx: Any = torch.onnx.export(
            program, dynamo=True, input_names=names, output_names=outputs, verbose=False
        )
    _name_batch(program_onnx.model.graph, "batch")
    for node in program_onnx.model.graph.all_nodes():
        node.metadata_props.clear()  # stack traces with folder names of this machine
        node.doc_string = None
    program_onnx.model.metadata_props["cinefeed"] = json.dumps(spec_table(spec) | {"model": model.name})
    program_onnx.save(path, external_data=False)
    return any_batch


def _trace(module: Any, example: list[Any], model: keras.Model) -> tuple[Any, bool]:
    """Return a module's traced program and whether it accepts batches of any size; otherwise it accepts one clip."""
    import torch

    def trace(size: int, *, dynamic: bool) -> Any:
        inputs = tuple(torch.as_tensor(np.repeat(each[:1], size, axis=0), device="cpu") for each in example)
        batch = torch.export.Dim("batch", min=1, max=2**16)
        shapes = (tuple({0: batch} for _ in inputs),) if dynamic else None
        with torch.no_grad():
            return torch.export.export(module.cpu(), inputs, dynamic_shapes=shapes, strict=False)

    recurrent = [each for each in model.layers if isinstance(each, keras.layers.RNN)]
    # With padding, Keras' loop over time fixes the batch size while tracing; unrolled, it does not. A loop that runs
    # backwards cannot be unrolled, and is traced for batches of one clip.
    for unroll in (False, True):
        for layer in recurrent:
            layer.unroll = unroll
        try:
            return trace(3, dynamic=True), True
        except Exception as error:  # PyTorch raises many types if it cannot trace a module
            last = error
        finally:
            for layer in recurrent:
                layer.unroll = False
        if not recurrent:
            break
    try:
        return trace(1, dynamic=False), False
    except Exception as error:
        raise SettingError(
            f"PyTorch cannot export {model.name} to ONNX: {error or last}; use format='keras' (--format keras)"
        ) from error


def _name_batch(graph: Any, name: str) -> None:
    """Set a readable name for the batch axis, which PyTorch names by a number."""
    import onnx_ir

    for tensor in (*graph.inputs, *graph.outputs):
        if not isinstance(tensor.shape[0], int):
            tensor.shape = onnx_ir.Shape([name, *tensor.shape[1:]])


@contextmanager
def _without_messages() -> Iterator[None]:
    """Suppress the log messages and warnings of the exporters."""
    loggers = [logging.getLogger(name) for name in ("torch.export", "torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _onnx_scores(path: Path, *, any_batch: bool) -> Callable[[Arrays], Mapping[str, Any]]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]

    def scores(inputs: Arrays) -> Mapping[str, Any]:
        batch = {each.name: np.ascontiguousarray(inputs[each.name]) for each in session.get_inputs()}
        count = len(next(iter(batch.values())))
        batches = [batch] if any_batch else [{name: x[i : i + 1] for name, x in batch.items()} for i in range(count)]
        outputs = [session.run(names, each) for each in batches]
        return {name: np.concatenate(parts) for name, parts in zip(names, zip(*outputs, strict=True), strict=True)}

    return scores


def _keras_scores(path: Path) -> Callable[[Arrays], Mapping[str, Any]]:
    loaded = keras.saving.load_model(path, compile=False, safe_mode=True)
    return lambda inputs: _by_name(loaded.predict_on_batch(inputs))
