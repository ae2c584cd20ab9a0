"""The contestants of benchmarks.feeding: generators of batches, whose clips have their number as pixels."""

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import cinefeed as cf
from cinefeed.feed.clip_pipeline import ClipPipeline, ClipTimings, PlanEntry

SHAPE = (16, 16, 112, 112, 3)
BATCH, CLIP = SHAPE[0], SHAPE[1:]
WORKERS = 2
MARKS = 251  # a pixel shows its clip's number, modulo this
ROWS = BATCH * MARKS  # of the feed's epoch: numbers go on as if it had no end


def write(out: np.ndarray, number: int, filled: bool) -> None:
    """Do the work of a clip."""
    (out if filled else out[:, 0, 0, 0])[...] = number % MARKS


def fresh(number: int, dtype: str, filled: bool) -> np.ndarray:
    """Return a clip in fresh memory."""
    out = np.empty(CLIP, dtype)
    write(out, number, filled)
    return out


@dataclass(frozen=True)
class StandIn:
    """Puts the work in the place of reading and transforming: here, and in each worker process that unpickles it."""

    filled: bool

    def sample(self, rng: np.random.Generator, info: object) -> dict[str, Any]:
        """Draw nothing."""
        return {}

    def apply(self, frames: np.ndarray, parameters: object) -> np.ndarray:
        """Change nothing."""
        return frames

    def __reduce__(self) -> tuple[Any, ...]:
        return stand_in, (self.filled,)


def stand_in(filled: bool) -> StandIn:
    """Replace what makes clips in this process."""

    def make(pipeline: ClipPipeline, draw: PlanEntry, out: np.ndarray, valid: np.ndarray) -> ClipTimings:
        write(out[0, 0], draw.position, filled)  # of the first clip and view, where there may be several
        valid[:] = True
        return ClipTimings(0.0, 0.0, 0.0)

    ClipPipeline.make = make  # type: ignore[assignment,method-assign]
    return StandIn(filled)


def feed(dtype: str, filled: bool, backend: str) -> Iterator[Any]:
    """Yield batches of cinefeed.Feed, all of it but the reading and the transforms."""
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "a.npy", np.zeros((CLIP[0], 8, 8), np.uint8))
        table = pa.table({"id": [str(row) for row in range(ROWS)], "path": ["a.npy"] * ROWS})
        source = cf.Feed(
            cf.Manifest.from_table(table, root=folder),
            target=None,
            clip=cf.Clip(frames=CLIP[0]),
            frame=cf.Frame(height=CLIP[1], width=CLIP[2], channels=CLIP[3], dtype=dtype),  # type: ignore[arg-type]
            transforms=[stand_in(filled)],
            batch_size=BATCH,
            workers=cf.Workers(count=WORKERS, backend=backend),  # type: ignore[arg-type]
        )
        while True:
            for batch in source:
                yield batch.clips


def alone(dtype: str, filled: bool) -> Iterator[Any]:
    """Yield one batch again and again, written by two threads."""
    out = np.empty(SHAPE, dtype)
    with ThreadPoolExecutor(WORKERS) as pool:
        for first in count(0, BATCH):

            def half(part: int, first: int = first) -> None:
                for place in range(part, BATCH, WORKERS):
                    write(out[place], first + place, filled)

            list(pool.map(half, range(WORKERS)))
            yield out


def torch_loader(dtype: str, filled: bool) -> Iterator[Any]:
    import torch
    from torch.utils.data import DataLoader, Dataset

    class Clips(Dataset[torch.Tensor]):
        def __len__(self) -> int:
            return 10**9

        def __getitem__(self, number: int) -> torch.Tensor:
            return torch.from_numpy(fresh(number, dtype, filled))

    torch.set_num_threads(1)
    yield from DataLoader(Clips(), batch_size=BATCH, num_workers=WORKERS)


def keras_dataset(dtype: str, filled: bool) -> Iterator[Any]:
    import os

    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras
    from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter  # what `fit` reads it with

    class Batches(keras.utils.PyDataset):  # type: ignore[misc]
        num_batches = None  # without an end, for indices up to one would be made into a list

        def __getitem__(self, index: int) -> tuple[np.ndarray]:
            return (np.stack([fresh(BATCH * index + place, dtype, filled) for place in range(BATCH)]),)

    adapter = PyDatasetAdapter(Batches(workers=WORKERS, use_multiprocessing=True), shuffle=False)
    yield from (batch[0] for batch in adapter.get_numpy_iterator())


def spdl_pipeline(dtype: str, filled: bool, process: bool) -> Iterator[Any]:
    from functools import partial

    from spdl.pipeline import PipelineBuilder, SharedMemoryRingBuffer, run_pipeline_in_subprocess

    work = partial(fresh, dtype=dtype, filled=filled)
    builder: Any = PipelineBuilder()
    builder = builder.add_source(range(10**9)).pipe(work, concurrency=WORKERS, output_order="input")
    builder = builder.aggregate(BATCH).pipe(np.stack).add_sink(3)
    if process:
        arena = SharedMemoryRingBuffer(5 * int(np.prod(SHAPE)) * np.dtype(dtype).itemsize)
        yield from run_pipeline_in_subprocess(builder.get_config(), num_threads=WORKERS, arena=arena)
    else:
        pipeline = builder.build(num_threads=WORKERS)
        with pipeline.auto_stop():
            yield from pipeline


def grain_dataset(dtype: str, filled: bool, process: bool) -> Iterator[Any]:
    from functools import partial

    import grain  # type: ignore[import-untyped]
    from absl import flags

    flags.FLAGS.mark_as_parsed()  # or its workers do not start
    clips = grain.MapDataset.range(10**9).map(partial(fresh, dtype=dtype, filled=filled)).batch(BATCH)
    threads = 0 if process else WORKERS
    batches = clips.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads))
    if process:
        batches = batches.mp_prefetch(grain.MultiprocessingOptions(num_workers=WORKERS, per_worker_buffer_size=2))
    yield from batches


CONTESTANTS: dict[str, Callable[[str, bool], Iterator[Any]]] = {
    "cinefeed, threads": lambda dtype, filled: feed(dtype, filled, "thread"),
    "cinefeed, processes": lambda dtype, filled: feed(dtype, filled, "process"),
    "torch DataLoader": torch_loader,
    "Keras PyDataset, multiprocessing": keras_dataset,
    "SPDL, threads": lambda dtype, filled: spdl_pipeline(dtype, filled, False),
    "SPDL, threads of a process, arena": lambda dtype, filled: spdl_pipeline(dtype, filled, True),
    "Grain, threads": lambda dtype, filled: grain_dataset(dtype, filled, False),
    "Grain, processes": lambda dtype, filled: grain_dataset(dtype, filled, True),
    "the work alone": alone,
}
