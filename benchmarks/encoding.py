"""Training on features against training on frames: CPU time of an epoch, and of the encoding that is done once.

Run: python -m benchmarks.encoding [--data ../shared/data/lips] [--videos 48] [--epochs 3] [--only NAME] [--json FILE]

Three networks, each whole and cut in two: `cnn_rnn` as it is; with a frozen MobileNetV2 as its CNN (weights drawn at
random; time does not depend on them); and the 2020 system's. Whole, an epoch decodes the videos and runs the CNN on
every frame; cut, it reads features that were encoded before. What counts is CPU time of the process and its threads,
so that others on the machine have no say, with one thread for PyTorch: two wait for each other in a loop, which counts
as work (ten times the CPU on a busy machine). The first epoch is left out. The median of the others is shown.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np
import pyarrow as pa
import torch

import cinefeed as cf
from benchmarks.rows import DATA, Row, contestants
from cinefeed.adapters.keras import FeedDataset
from cinefeed.data.manifest.encoded import feature_frame
from cinefeed.encoders.video_encoder import VideoEncoder
from cinefeed.models.parts import FEATURES, FRAMES
from cinefeed.training.encode import encode
from cinefeed.transforms.base import Transform
from cinefeed.transforms.compose import Compose

CLIP, BATCH = 16, 16


class Network(NamedTuple):
    """A network, what its feed makes of a frame, and the settings of its second half."""

    build: Callable[[cf.FeedSpec], keras.Model]
    side: int
    transforms: tuple[Transform, ...] = ()
    half: Mapping[str, Any] = MappingProxyType({})


NETWORKS = {
    "cnn_rnn": Network(cf.models.cnn_rnn, 96),
    "cnn_rnn, MobileNetV2 frozen": Network(
        lambda spec: cf.models.cnn_rnn(spec, backbone="MobileNetV2", frozen=True), 96
    ),
    "reference_cnn_lstm": Network(
        lambda spec: cf.models.reference_cnn_lstm(spec.clip_shape),
        150,
        transforms=(cf.Normalize(),),
        half=MappingProxyType({"rnn": "lstm", "units": 128, "dense": 128}),
    ),
}


def videos_of(folder: Path, count: int) -> cf.Manifest:
    """Return some videos with a label, which nobody learns here."""
    paths = [str(each) for each in sorted(folder.glob("*.mp4"))[:count]]
    if not paths:
        raise SystemExit(f"{folder} holds no .mp4; name a folder with --data")
    scanned = cf.Manifest.scan(folder, progress=False)
    rows = scanned.take(np.arange(min(count, len(scanned))))
    labels = pa.array(np.random.default_rng(0).normal(size=len(rows)))
    return cf.Manifest(rows.table.append_column("label", labels), root=rows.root)


def feed_of(manifest: cf.Manifest, frame: cf.Frame, transforms: tuple[Transform, ...] = ()) -> cf.Feed:
    """Return the feed of a manifest, of videos or of their features."""
    clip = cf.Clip(frames=CLIP)
    return cf.Feed(manifest, target="label", clip=clip, frame=frame, transforms=transforms, batch_size=BATCH, seed=0)


def epochs_of(model: keras.Model, feed: cf.Feed, epochs: int) -> list[float]:
    """Train, and return the CPU seconds of each epoch but the first."""
    model.compile(optimizer="adam", loss="mse")
    seconds, dataset = [], FeedDataset(feed)
    for _ in range(epochs + 1):
        began = time.process_time()
        model.fit(dataset, epochs=1, verbose=0)
        seconds.append(time.process_time() - began)
    return seconds[1:]


def measure(videos: cf.Manifest, network: Network, *, name: str, epochs: int, folder: Path) -> dict[str, Any]:
    """Return the CPU seconds of an epoch of the whole network and of its second half, and of the encoding."""
    frame = cf.Frame(height=network.side, width=network.side, channels=1)
    feed = feed_of(videos, frame, network.transforms)
    whole = network.build(feed.spec)
    full = epochs_of(whole, feed, epochs)
    of_frames = keras.Model(whole.get_layer(f"{FRAMES}_clips").output, whole.get_layer(f"{FEATURES}_clips").output)
    compose = Compose(network.transforms, frame=frame)
    encoder = VideoEncoder(model=of_frames, compose=compose, name=f"{name}, weights at random")
    began = time.process_time()
    result = encode(videos, out=folder, encoder=encoder)
    once = time.process_time() - began
    features = cf.Manifest.read(result.path)
    feed = feed_of(features, cf.Frame(**feature_frame(features)))
    half = epochs_of(cf.models.feature_rnn(feed.spec, **network.half), feed, epochs)
    return {
        "network": name,
        "side": network.side,
        "features": result.dimension,
        "whole_seconds": statistics.median(full),
        "half_seconds": statistics.median(half),
        "times": statistics.median(full) / statistics.median(half),
        "encoding_seconds": once,
        "all_whole_seconds": full,
        "all_half_seconds": half,
    }


def rows(*, quick: bool) -> Iterator[Row | str]:
    """Yield the row of the benchmarks page: epochs of one network on features and on frames, and the encoding."""
    torch.set_num_threads(1)
    if not (DATA / "lips").exists():
        yield "`lips` is left out: CINEFEED_DATA has no folder of this name."
        return
    name, count = "cnn_rnn", 8 if quick else 48
    with tempfile.TemporaryDirectory() as folder:
        videos = videos_of(DATA / "lips", count)
        row = measure(videos, NETWORKS[name], name=name, epochs=1 if quick else 3, folder=Path(folder, "features"))
    yield Row(
        what=f"{name}, {row['side']} x {row['side']}, {count} videos, 1 thread",
        unit="processor s an epoch",
        check="The frames are the same videos; features are of the same CNN.",
        higher_is_better=False,
        contestants=contestants(
            {
                "cinefeed, on encoded features": row["all_half_seconds"],
                "the whole network on frames": row["all_whole_seconds"],
                "cinefeed encode, once": [row["encoding_seconds"]],
            },
            bounds=["cinefeed encode, once"],
        ),
    )


def main() -> None:
    """Measure the three networks and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA / "lips")
    parser.add_argument("--videos", type=int, default=48)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--only", default="", help="networks with this in their name")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    videos = videos_of(args.data, args.videos)
    frames = sum(videos.column("num_frames").to_pylist())
    print(f"{len(videos)} videos of {frames} frames; clips of {CLIP} frames; Keras on torch, 1 thread")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, network in NETWORKS.items():
            if args.only not in name:
                continue
            row = measure(videos, network, name=name, epochs=args.epochs, folder=Path(folder, name))
            rows.append(row)
            print(
                f"{name}, {network.side} x {network.side}: {row['whole_seconds']:.3g} s of CPU an epoch, on its "
                f"{row['features']} features {row['half_seconds']:.3g} s, {row['times']:.0f} times less; "
                f"encoding, once: {row['encoding_seconds']:.3g} s",
                flush=True,
            )
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
