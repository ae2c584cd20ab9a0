"""How fast clips are read beside other libraries: clips a second of one thread.

    python -m benchmarks.sources [--data ../shared/data] [--clips 40] [--rounds 5] [--only lips] [--json out.json]

Three sets: `pocus` (ultrasound of many sizes), `lips` (112 x 112) and a generated one of 340 x 256, H.264, a key frame
every 250. A clip is 16 frames, every second one, from a random place, cropped to 112 x 112, uint8, grey or RGB. Every
reader is asked for the same clips, in turn, on one thread. Seconds are those of the processor, of all threads, so that
a library that starts more than it was told gains nothing; the table gives medians over the rounds. What each reader
returns is compared with cinefeed once:

off:    mean absolute difference in grey levels; other filters give a few
wrong:  share of the frames that are nearer to cinefeed's frame before or after than to the one asked for

decode alone opens, seeks, skips and stops as cinefeed does, with bare PyAV, and leaves the frames untouched.
A peer that is not installed is left out, and said so.
"""

import argparse
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

import cinefeed as cf
from benchmarks.rows import DATA, MOST_WRONG, Row, contestants, frames_problem, missing, wrong_frames
from cinefeed.core.rng import Stage, rng_for
from cinefeed.testing import write_video
from cinefeed.transforms.compose import Compose

SETS = ["pocus", "lips", "long GOP"]
LITTLE = {"files": 1, "frames": 260}  # of a quick run
SIDE, FRAMES, STRIDE = 112, 16, 2
FITS = {channels: Compose([], frame=cf.Frame(height=SIDE, width=SIDE, channels=channels)) for channels in (1, 3)}
SKIPPING = {"h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4"}  # as in cinefeed.video.ffmpeg.packets


class Ask(NamedTuple):
    """One clip: which file, which frames."""

    manifest: cf.Manifest
    row: int
    path: Path
    metadata: Any
    indices: np.ndarray

    def cover(self) -> tuple[int, int]:
        """Return the height and width at which the frame covers the target."""
        scale = SIDE / min(self.metadata.height, self.metadata.width)
        return max(SIDE, round(self.metadata.height * scale)), max(SIDE, round(self.metadata.width * scale))


Reader = Callable[[Ask, int], Any]  # the clip, the channels -> (frames, height, width, channels), uint8


def ours(ask: Ask, channels: int) -> np.ndarray:
    """Read a clip as a feed does, from the row of a manifest to the target frame."""
    out = np.empty((len(ask.indices), SIDE, SIDE, channels), np.uint8)
    metadata = ask.manifest.metadata(ask.row)
    with cf.open_video(ask.path, channels=channels, metadata=metadata) as source:
        FITS[channels].render(source.planes(ask.indices), out, [])
    return out


def decode_alone(ask: Ask, channels: int) -> None:
    """Decode the frames of a clip from the key frame before, and nothing more."""
    metadata, ticks = ask.metadata, ask.metadata.ticks
    unsent = set(ticks.of_frames(np.unique(ask.indices)).tolist())
    key = metadata.key_frames[np.searchsorted(metadata.key_frames, ask.indices.min(), side="right") - 1]
    fast = {"analyzeduration": "1", "probesize": "32", "fpsprobesize": "0"}
    with av.open(f"file:{ask.path}", container_options=fast, options={"skip_frame": "all"}) as container:
        stream = container.streams.video[0]
        codec = stream.codec_context
        codec.thread_type, codec.thread_count = "NONE", 1
        if key > 0:
            container.seek(int(ticks.of_frames(key)), stream=stream)
        for packet in container.demux(stream):
            is_needed = packet.pts in unsent or metadata.codec not in SKIPPING
            codec.skip_frame = "DEFAULT" if is_needed else "NONREF"
            unsent.discard(packet.pts)
            codec.decode(packet)
            if not unsent:
                codec.decode(None)
                return


def pyav(ask: Ask, channels: int) -> np.ndarray:
    """Seek, decode, take the frames by their stamps, scale and convert with one swscale context, crop."""
    stamps = ask.metadata.ticks.of_frames(ask.indices).tolist()
    (height, width), form, reformatter = ask.cover(), "gray" if channels == 1 else "rgb24", VideoReformatter()
    missing, frame_at = set(stamps), {}
    with av.open(str(ask.path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        container.seek(stamps[0], stream=stream)
        for frame in container.decode(stream):
            if frame.pts in missing:
                frame_at[frame.pts] = reformatter.reformat(frame, width, height, form).to_ndarray()
                missing.discard(frame.pts)
            if not missing:
                break
    return crop(np.stack([frame_at[stamp] for stamp in stamps])).reshape(-1, SIDE, SIDE, channels)


def crop(frames: np.ndarray) -> np.ndarray:
    """Cut the middle out of (n, height, width ...)."""
    top, left = (frames.shape[1] - SIDE) // 2, (frames.shape[2] - SIDE) // 2
    return frames[:, top : top + SIDE, left : left + SIDE]


def in_channels(frames: np.ndarray, channels: int) -> np.ndarray:
    """Return RGB frames as they are, or grey: peers that decode to RGB alone have no other way."""
    frames = np.ascontiguousarray(frames)
    if channels == 3:
        return frames
    return cv2.cvtColor(frames.reshape(-1, SIDE, 3), cv2.COLOR_RGB2GRAY).reshape(*frames.shape[:3], 1)


def torchcodec_readers() -> dict[str, Reader]:
    import torch
    import torchcodec
    from torchcodec.decoders import VideoDecoder
    from torchcodec.transforms import Resize

    torch.set_num_threads(1)

    def decoded(ask: Ask, mode: Any, resize: bool) -> torch.Tensor:
        moves, path = [Resize(ask.cover())] if resize else None, str(ask.path)
        decoder = VideoDecoder(path, num_ffmpeg_threads=1, seek_mode=mode, dimension_order="NHWC", transforms=moves)
        last = decoder.metadata.num_frames - 1  # approximate: what the header says, which may be one too few
        return decoder.get_frames_at([min(index, last) for index in ask.indices.tolist()]).data

    def resizing(mode: str) -> Reader:
        return lambda ask, channels: in_channels(crop(decoded(ask, mode, True).numpy()), channels)

    def full_size(ask: Ask, channels: int) -> np.ndarray:
        frames, (height, width) = decoded(ask, "approximate", False).numpy(), ask.cover()
        if frames.shape[1:3] != (height, width):
            frames = np.stack([cv2.resize(each, (width, height), interpolation=cv2.INTER_AREA) for each in frames])
        return in_channels(crop(frames), channels)

    name = f"torchcodec {torchcodec.__version__.split('+')[0]}"
    resizes: dict[str, Reader] = {f"{name}, its resize": resizing("approximate"), f"{name}, exact": resizing("exact")}
    return resizes | {f"{name}, OpenCV's resize": full_size}


def decord_readers() -> dict[str, Reader]:
    import decord

    def read(ask: Ask, channels: int) -> np.ndarray:
        height, width = ask.cover()
        reader = decord.VideoReader(str(ask.path), width=width, height=height, num_threads=1)
        return in_channels(crop(reader.get_batch(ask.indices.tolist()).asnumpy()), channels)

    return {f"decord {decord.__version__}": read}


def spdl_readers() -> dict[str, Reader]:
    from importlib.metadata import version

    import spdl.io

    def read(ask: Ask, channels: int) -> np.ndarray:
        seconds, places = ask.metadata.times.seconds(), np.unique(ask.indices) - ask.indices[0]
        step = float(np.median(np.diff(seconds)))
        start, end = seconds[ask.indices[0]] - step / 2, seconds[ask.indices[-1]] + step / 2
        # Four frames more: packets of AVI files bear stamps that are off by the decoder's delay.
        packets = spdl.io.demux_video(str(ask.path), timestamp=(max(start, 0.0), end + 4 * step))
        scaled = spdl.io.get_video_filter_desc(
            scale_width=SIDE, scale_height=SIDE, scale_mode="crop", pix_fmt="gray8" if channels == 1 else "rgb24"
        )
        expression = "+".join(f"eq(n,{place})" for place in places)
        described = f"trim=start={start}:end={end},select='{expression}',{scaled}".replace("bicubic", "bilinear")
        frames = spdl.io.to_numpy(spdl.io.convert_frames(spdl.io.decode_packets(packets, filter_desc=described)))
        order = np.minimum(np.searchsorted(places, ask.indices - ask.indices[0]), len(frames) - 1)
        return frames.reshape(-1, SIDE, SIDE, channels)[order]

    return {f"SPDL {version('spdl')}": read}


def readers() -> tuple[dict[str, Reader], dict[str, str]]:
    """Return every reader whose library is there, and why the others are left out."""
    by_name: dict[str, Reader] = {"cinefeed": ours, "decode alone": decode_alone, "PyAV, swscale": pyav}
    problems = {}
    for peer in (torchcodec_readers, decord_readers, spdl_readers):
        try:
            by_name |= peer()
        except (ImportError, RuntimeError, OSError) as error:
            problems[peer.__name__.removesuffix("_readers")] = missing(error)
    return by_name, problems


class Compared(NamedTuple):
    """What a reader returns, beside cinefeed: the clips that it reads at all, and how they differ."""

    asks: list[Ask]
    off: float = float("nan")
    wrong: float = 0.0
    error: str = ""


def compare(reader: Reader, asks: list[Ask], channels: int) -> Compared:
    """Read every clip once, and once more with cinefeed, also a frame earlier and later."""
    read, wrong, distances, error = list[Ask](), 0, list[float](), ""
    for ask in asks:
        try:
            frames = reader(ask, channels).astype(np.float32)
        except Exception as failed:
            error = f"{type(failed).__name__}: {str(failed).splitlines()[0][:60]}"
            continue
        near = [np.clip(ask.indices + step, 0, ask.metadata.times.count - 1) for step in (0, -1, 1)]
        expected, *neighbours = (ours(ask._replace(indices=numbers), channels) for numbers in near)
        wrong += wrong_frames(frames, expected, neighbours=neighbours)
        distances.append(float(np.abs(frames - expected).mean()))
        read.append(ask)
    return Compared(read, float(np.mean(distances or [np.nan])), wrong / max(len(read) * FRAMES, 1), error)


def write_long_gop(folder: Path, *, files: int = 3, frames: int = 600) -> Path:
    """Write texture that moves, 340 x 256, H.264 with a key frame every 250 frames and two B-frames between others."""
    for number in range(files):
        rng = np.random.default_rng(number)
        texture = cv2.GaussianBlur(rng.integers(0, 256, (512, 512, 3), np.uint8), (0, 0), 4)
        texture = cv2.normalize(texture, None, 0, 255, cv2.NORM_MINMAX)

        turns = (cv2.getRotationMatrix2D((256, 256), 0.4 * n, 1 + 0.3 * np.sin(n / 40)) for n in range(frames))
        turned = (cv2.warpAffine(texture, turn, (512, 512), borderMode=cv2.BORDER_WRAP) for turn in turns)
        pictures = (picture[128:384, 86:426] for picture in turned)
        write_video(folder / f"{number}.mp4", pictures, gop=250, b_frames=2, options={"preset": "medium", "crf": "23"})
    return folder


def asks_of(folder: Path, *, clips: int) -> list[Ask]:
    manifest = cf.Manifest.scan(folder).readable()
    clip, rng = cf.Clip(frames=FRAMES, stride=STRIDE), rng_for(0, stage=Stage.CLIP, epoch=0, position=0)
    asks = []
    for row in rng.integers(0, len(manifest), clips).tolist():
        metadata = manifest.metadata(row)
        asks.append(Ask(manifest, row, manifest.path_of(row), metadata, clip.select(metadata.times, rng=rng)[0]))
    return asks


def measure(
    asks: list[Ask], channels: int, *, rounds: int
) -> tuple[dict[str, list[float]], dict[str, Compared], dict[str, str]]:
    """Return the clips a second of each reader and round, how the frames compare, and what is left out, and why."""
    reader_functions, problems = readers()
    compared = {
        name: compare(reader_functions[name], asks, channels) for name in reader_functions if name != "decode alone"
    }
    result = {"decode alone": Compared(asks)} | compared
    rates: dict[str, list[float]] = {name: [] for name, each in result.items() if each.asks}
    gc.freeze()  # what was imported: each collection below would look through all of it
    for _ in range(rounds):
        for name, each in rates.items():
            gc.collect()
            began = time.process_time()
            for ask in result[name].asks:
                reader_functions[name](ask, channels)
            each.append(len(result[name].asks) / (time.process_time() - began))
    return {"cinefeed": rates.pop("cinefeed"), **rates}, result, problems


def print_table(title: str, asks: list[Ask], channels: int, *, rounds: int) -> dict[str, list[float]]:
    """Print the table of one set and number of channels, and return the clips a second of each reader and round."""
    rates, result, problems = measure(asks, channels, rounds=rounds)
    for name, problem in problems.items():
        print(f"left out: {name} {problem}")
    print(f"\n{title}: {len(asks)} clips, {rounds} rounds")
    print(f"{'':34}{'clips/s':>9}{'from':>8}{'to':>8}{'cinefeed is':>13}{'off':>7}{'wrong':>7}")
    for name, each in rates.items():
        median, (read, off, wrong, error) = statistics.median(each), result[name]
        ratio = statistics.median(rates["cinefeed"]) / median
        figures = f"{median:9.1f}{min(each):8.1f}{max(each):8.1f}{ratio:11.2f} x"
        print(f"{name:34}{figures}{off:7.1f}{wrong:7.1%}{'  WRONG FRAMES' if wrong > MOST_WRONG else ''}")
        if error:
            print(f"{'':34}  fails on {len(asks) - len(read)} of {len(asks)} clips, not timed: {error}")
    for name in result.keys() - rates.keys():
        print(f"{name:34} fails on every clip: {result[name].error}")
    return rates


def rows(*, quick: bool) -> Iterator[Row | str]:
    """Yield the rows of the benchmarks page, and a sentence about each set that is absent."""
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        for name in SETS:
            place = write_long_gop(Path(folder), **LITTLE if quick else {}) if name == "long GOP" else DATA / name
            if not place.exists():
                yield f"`{name}` is left out: CINEFEED_DATA has no folder of this name."
                continue
            asks = asks_of(place, clips=(8 if quick else 40) if name == "lips" else (1 if quick else 8))
            for channels in (1, 3):
                yield row_of(name, asks, channels, rounds=1 if quick else 5 if name == "lips" else 3)


def row_of(name: str, asks: list[Ask], channels: int, *, rounds: int) -> Row:
    """Return one row: a set, and a number of channels."""
    rates, result, problems = measure(asks, channels, rounds=rounds)
    for reader, each in result.items():
        if not each.asks:
            problems[reader] = f"fails on every clip: {each.error}"
        elif problem := frames_problem(round(each.wrong * len(each.asks) * FRAMES), len(each.asks) * FRAMES):
            problems[reader] = problem
    height, width, gop = (
        round(statistics.median(values))
        for values in zip(
            *(
                (each.metadata.height, each.metadata.width, each.metadata.times.count / len(each.metadata.key_frames))
                for each in asks
            ),
            strict=True,
        )
    )
    return Row(
        what=f"{name}, {'grey' if channels == 1 else 'RGB'}, {height} x {width}, a key frame every {gop} frames",
        unit="clips per CPU second",
        check="Every clip of every peer was compared with cinefeed's, and with its neighbours.",
        contestants=contestants(rates, problems=problems, bounds=["decode alone"]),
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=SETS)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    results: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in [args.only] if args.only else SETS:
            place = write_long_gop(Path(folder)) if name == "long GOP" else args.data / name
            asks = asks_of(place, clips=args.clips)
            for channels in (1, 3):
                title = f"{name}, {'grey' if channels == 1 else 'RGB'}"
                results[title] = print_table(title, asks, channels, rounds=args.rounds)
    if args.json:
        args.json.write_text(json.dumps({"clips_per_second": results}, indent=1))


if __name__ == "__main__":
    main()
