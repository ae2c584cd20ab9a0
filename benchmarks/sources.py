"""How fast clips are read, one thread: decoding alone, EncodedSource.planes, and torchcodec where it is installed.

    python -m benchmarks.sources ../shared/data/pocus --clips 60

Decoding alone opens, seeks, skips and stops as the source does, with bare PyAV, and leaves the frames untouched.
Each round reads the same clips with every reader; the table gives medians over rounds, milliseconds a clip.
"""

import argparse
import gc
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cinefeed.clips import Clip
from cinefeed.rng import Stage, rng_for
from cinefeed.sources.base import Facts
from cinefeed.sources.encoded import EncodedSource
from cinefeed.sources.index import open_container, probe_encoded
from cinefeed.sources.open import known_suffix

Reader = Callable[[Path, Facts, np.ndarray], object]


def decode_alone(path: Path, facts: Facts, indices: np.ndarray) -> object:
    """Decode the frames of a clip and nothing more: the floor under every reader."""
    ticks = facts.ticks
    wanted = set(ticks.of_frames(np.unique(indices)).tolist())
    key = facts.key_frames[np.searchsorted(facts.key_frames, indices.min(), side="right") - 1]
    frames, skips = [], facts.codec in {"h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4"}
    with open_container(path, container=facts.container, known=True) as container:
        stream = container.streams.video[0]
        codec = stream.codec_context
        codec.thread_type, codec.thread_count = "NONE", 1
        if key > 0:
            container.seek(int(ticks.of_frames(key)), stream=stream)
        unsent = len(wanted)
        for packet in container.demux(stream):
            if packet.pts in wanted:
                unsent -= 1
                codec.skip_frame = "DEFAULT"
            elif skips:
                codec.skip_frame = "NONREF"
            frames += [frame for frame in codec.decode(packet) if frame.pts in wanted]
            if not unsent:
                frames += [frame for frame in codec.decode(None) if frame.pts in wanted]
                break
    return frames


def planes(channels: int) -> Reader:
    """Read the clip's planes."""

    def read(path: Path, facts: Facts, indices: np.ndarray) -> object:
        with EncodedSource(path, channels=channels, facts=facts) as source:
            return source.planes(indices)

    return read


def unskipped(path: Path, facts: Facts, indices: np.ndarray) -> object:
    """Read the clip's luma and decode every frame on the way."""
    with EncodedSource(path, channels=1, facts=facts) as source:
        source._skips = False
        return source.planes(indices)


def pixels(path: Path, facts: Facts, indices: np.ndarray) -> object:
    """Read the clip as RGB at its own size."""
    with EncodedSource(path, channels=3, facts=facts) as source:
        return source.read(indices)


def torchcodec_reader() -> Reader | None:
    try:
        import torch
        from torchcodec.decoders import VideoDecoder
    except (ImportError, RuntimeError):
        return None
    torch.set_num_threads(1)

    def read(path: Path, facts: Facts, indices: np.ndarray) -> object:
        decoder = VideoDecoder(str(path), num_ffmpeg_threads=1, seek_mode="approximate")
        return decoder.get_frames_at(indices.tolist())

    return read


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("../shared/data/pocus"))
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--stride", type=int, default=2)
    given = parser.parse_args()
    files = [path for path in sorted(given.folder.rglob("*")) if known_suffix(path) not in (None, ".npy")]
    clip, rng = Clip(frames=given.frames, stride=given.stride), rng_for(0, stage=Stage.CLIP, epoch=0, position=0)
    clips = []
    for path in (files[i] for i in rng.integers(0, len(files), given.clips)):
        facts = probe_encoded(path, verify="decode")
        clips.append((path, facts, clip.select(facts.times, rng=rng)[0]))
    readers: dict[str, Reader | None] = {
        "decode alone": decode_alone,
        "planes, grey": planes(1),
        "planes, colour": planes(3),
        "grey, no skipping": unskipped,
        "RGB, own size": pixels,
        "torchcodec": torchcodec_reader(),
    }
    seconds: dict[str, list[float]] = {name: [] for name, reader in readers.items() if reader}
    for _ in range(given.rounds):
        for name in seconds:
            gc.collect()
            start = time.process_time()
            for each in clips:
                readers[name](*each)
            seconds[name].append(time.process_time() - start)
    floor = statistics.median(seconds["decode alone"])
    print(f"{given.folder}: {len(clips)} clips of {given.frames} frames, stride {given.stride}, {given.rounds} rounds")
    print(f"{'':18}{'ms a clip':>10}{'fastest':>10}{'of decoding alone':>20}")
    for name, spent in seconds.items():
        middle = statistics.median(spent)
        print(f"{name:18}{middle / len(clips) * 1e3:10.2f}{min(spent) / len(clips) * 1e3:10.2f}{floor / middle:19.1%}")


if __name__ == "__main__":
    main()
