"""Peers of packed shards: DataLoaders over `.npy` files, over our shards read by WebDataset, and over LitData's format.

Each cuts a clip out of a packed video and turns it with OpenCV: no peer resizes or converts colours.
"""

import io
import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

import cinefeed as cf
from benchmarks.rows import frames_problem, wrong_frames


@dataclass(frozen=True, kw_only=True)
class PeerSettings:
    """What each peer makes of a video: clips of `frames`, `side` x `side`, turned and shifted, in batches."""

    side: int
    frames: int
    stride: int
    degrees: float
    pixels: float
    batch_size: int

    def indices(self, count: int, seed: int) -> NDArray[np.int64]:
        """Return the frames of a clip of a video; the last is repeated in a video that is too short."""
        start = int(np.random.default_rng(seed).integers(0, max(count - (self.frames - 1) * self.stride, 1)))
        return np.minimum(start + np.arange(self.frames) * self.stride, count - 1)

    def turned(self, frames: NDArray[np.uint8], seed: int) -> torch.Tensor:
        """Return a clip, uint8 (frames, side, side[, channels]), of the frames of one."""
        rng = np.random.default_rng(seed + 1)
        height, width = frames.shape[1:3]
        scale = self.side / min(height, width)
        matrix = cv2.getRotationMatrix2D(
            (width / 2, height / 2), float(rng.uniform(-self.degrees, self.degrees)), scale
        )
        matrix[:, 2] += rng.uniform(-self.pixels, self.pixels, 2) + (self.side - np.array([width, height])) / 2
        turned = [cv2.warpAffine(np.ascontiguousarray(frame), matrix, (self.side, self.side)) for frame in frames]
        return torch.from_numpy(np.stack(turned))


class Arrays(Dataset):
    """Clips of `.npy` files, cut out by a memory map."""

    def __init__(self, paths: list[Path], settings: PeerSettings) -> None:
        self.paths, self.settings = paths, settings

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        """Return one clip."""
        video = np.load(self.paths[index], mmap_mode="r")
        return self.settings.turned(video[self.settings.indices(len(video), index)], index)


Batches = Callable[[range], Iterator[torch.Tensor]]  # of clips (batch, frames, side, side[, channels]) of some epochs


def arrays_peer(paths: list[Path], settings: PeerSettings, workers: int) -> Batches:
    """Return a function that yields the batches of some epochs over `.npy` files."""

    def run(epochs: range) -> Iterator[torch.Tensor]:
        clips = Arrays(paths * len(epochs), settings)
        yield from DataLoader(clips, batch_size=settings.batch_size, num_workers=workers)

    return run


def webdataset_peer(folder: Path, settings: PeerSettings, workers: int) -> Batches:
    """Return the same for the shards of a packed data set, of `.npy` members or of videos that torchcodec decodes."""
    import webdataset

    def clip(sample: dict[str, bytes]) -> torch.Tensor:
        seed = int(sample["__key__"])
        if "npy" in sample:
            video = np.load(io.BytesIO(sample["npy"]))
            return settings.turned(video[settings.indices(len(video), seed)], seed)
        from torchcodec.decoders import VideoDecoder

        content = sample["mp4"] if "mp4" in sample else sample["mkv"]
        decoder = VideoDecoder(content, num_ffmpeg_threads=1, seek_mode="approximate", dimension_order="NHWC")
        frames = decoder.get_frames_at(settings.indices(decoder.metadata.num_frames, seed).tolist())
        return settings.turned(frames.data.numpy(), seed)

    shards = [str(path) for path in sorted((folder / "shards").glob("*.tar"))]

    def run(epochs: range) -> Iterator[torch.Tensor]:
        samples = webdataset.WebDataset(shards * len(epochs), shardshuffle=False, empty_check=False)
        has_video = samples.select(lambda sample: len(sample.keys() & {"npy", "mp4", "mkv"}) > 0)
        yield from DataLoader(has_video.map(clip), batch_size=settings.batch_size, num_workers=workers)

    return run


class _Optimized:
    """Reads one `.npy` file, for LitData's `optimize`, which sends it to its processes."""

    def __call__(self, path: str) -> dict[str, NDArray[np.uint8]]:
        return {"video": np.load(path)}


def litdata_peer(paths: list[Path], folder: Path, settings: PeerSettings, workers: int) -> Batches:
    """Write `.npy` files as LitData's optimised format into a folder, and return the same function for it."""
    import litdata

    litdata.optimize(
        fn=_Optimized(),
        inputs=[str(path) for path in paths],
        output_dir=str(folder),
        chunk_bytes="256MB",
        num_workers=1,
    )
    multiprocessing.set_start_method("fork", force=True)  # as for the other peers; optimize changes it

    class Clips(litdata.StreamingDataset):
        def __getitem__(self, index: int) -> torch.Tensor:
            video = super().__getitem__(index)["video"]
            seed = index if isinstance(index, int) else index.index
            return settings.turned(video[settings.indices(len(video), seed)], seed)

    def run(epochs: range) -> Iterator[torch.Tensor]:
        loader = litdata.StreamingDataLoader(
            Clips(str(folder), shuffle=False), batch_size=settings.batch_size, num_workers=workers
        )
        for _ in epochs:
            yield from loader

    return run


def peer_problem(batches: Iterator[torch.Tensor], videos: cf.Manifest, settings: PeerSettings, *, channels: int) -> str:
    """Return what is wrong with a peer's clips of all videos, in their order, or an empty text.

    They are compared with the frames that cinefeed reads, turned in the same way, and with their neighbours.
    """
    wrong = count = 0
    for row, clip in enumerate(clip for batch in batches for clip in batch.numpy()):
        if row >= len(videos):
            return f"returns more than {len(videos)} clips"
        with videos.open(row, channels=channels) as source:
            indices = settings.indices(len(source), row)
            near = [np.clip(indices + step, 0, len(source) - 1) for step in (0, -1, 1)]
            expected, *neighbours = (settings.turned(source.read(numbers), row) for numbers in near)
        wrong += wrong_frames(clip.reshape(expected.shape), expected, neighbours=neighbours)
        count += settings.frames
    if count < len(videos) * settings.frames:
        return f"returns {count // settings.frames} of {len(videos)} clips"
    return frames_problem(wrong, count)
