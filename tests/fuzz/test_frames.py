"""Mutated videos: every frame that is read is that of a full decode, however it is read, or there is an error.

Bytes, MP4 boxes and slices are mutated; each file is a seed, which repeats it:

    CINEFEED_FUZZ_SEEDS=12,77 pytest -m slow tests/fuzz/test_frames.py
"""

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import pytest
from video_mutations import SIDE, mutate_video, slices, write_streams

from cinefeed import open_video, probe
from cinefeed.core.errors import SourceError
from cinefeed.data.manifest.columns import metadata_to_row
from cinefeed.testing.sources import stored_metadata
from cinefeed.video.ffmpeg import source as encoded
from cinefeed.video.metadata import VideoMetadata

# Damage that FFmpeg does not mark: lost and missing references of H.264, HEVC that is not covered by its slices; an AVI
# file whose index has fewer entries than it has frames (8445).
UNMARKED = (390, 642, 882, 1070, 1098, 1360, 1431, 1597, 1613, 1645, 1720, 1901, 2152, 2764, 3389, 4564, 6305, 6689)
UNMARKED += (8445, 9064, 9450)
# Packets of which no frame comes: headers that a decoder refuses, H.264 pictures that are not in order of display.
REFUSED = (1225, 1736, 1739, 2240, 2582, 2795, 4667, 5768, 5939, 7512, 8063, 9946)
REFUSED_OTHERS = (656, 912, 1008, 1520)  # MJPEG
UNMARKED_OTHERS = (11, 120, 136, 144)  # of the other streams: decoders that leave pixels unwritten, or keep state
FAST, MANY = range(150), range(10_000)  # a file takes about 0.1 s of one core
FAST_OTHERS, MANY_OTHERS = range(32), range(2_000)
LEAST_REPORTED = 0.1  # of the files: else the comparison would pass by finding nothing
# The share of files of which a scan that has counted packets may give frames that are not those of a full decode: it
# has not looked for damage that the decoder does not mark.
MOST_UNSEEN = 0.02
MOST_MB = 1024


class Outcome(NamedTuple):
    """What came of a mutated file."""

    reported: bool  # damage, a break, or a refusal
    faults: list[str]
    unseen: list[str]  # of a scan that counted packets
    promises_more: bool = False  # the same scan has frames that a scan that decodes does not have


def written_streams(folder: Path, *, others: bool) -> dict[str, Path]:
    if shutil.which("ffmpeg") is None:
        if "ffmpeg" in os.environ.get("CINEFEED_REQUIRE", ""):
            pytest.fail("no ffmpeg program")
        pytest.skip("no ffmpeg program")
    return write_streams(folder, others=others)


@pytest.fixture(scope="module")
def streams(tmp_path_factory) -> dict[str, Path]:
    return written_streams(tmp_path_factory.mktemp("healthy"), others=False)


@pytest.fixture(scope="module")
def other_streams(tmp_path_factory) -> dict[str, Path]:
    return written_streams(tmp_path_factory.mktemp("healthy_others"), others=True)


def decoded_by_program(path: Path) -> list[np.ndarray]:
    """Return luma of every frame that the `ffmpeg` program decodes."""
    command = ["ffmpeg", "-v", "quiet", "-noautorotate", "-threads", "1", "-i", str(path), "-map", "0:v:0"]
    command += "-vf format=yuv420p,extractplanes=y -fps_mode passthrough -f rawvideo -s".split()
    raw = subprocess.run([*command, f"{SIDE}x{SIDE}", "-"], stdout=subprocess.PIPE, timeout=10).stdout
    return list(np.frombuffer(raw[: len(raw) // SIDE**2 * SIDE**2], np.uint8).reshape(-1, SIDE, SIDE))


def decoded_by_pyav(path: Path) -> tuple[list[int | None], list[np.ndarray]]:
    """Return stamps and luma of the FFmpeg in PyAV, which passes over packets that break, as the program does."""
    stamps, frames = [], []
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_type = "NONE"
            for packet in container.demux(stream):
                with suppress(av.FFmpegError):
                    for frame in packet.decode():
                        plane = np.frombuffer(frame.planes[0], np.uint8).reshape(-1, frame.planes[0].line_size)
                        frames.append(plane[: frame.height, : frame.width].copy())
                        stamps.append(frame.pts)
    except (av.FFmpegError, IndexError):
        pass
    return stamps, frames


def luma(path: Path, metadata: VideoMetadata, numbers: list[int]) -> list[np.ndarray | None]:
    """Return luma of these frames, read one after the other from one source; None where it is refused."""
    frames: list[np.ndarray | None] = []
    with open_video(path, channels=1, metadata=metadata) as source:
        for number in numbers:
            try:
                frames.append(np.array(source.planes([number]).frames[0][0]))
            except SourceError as error:
                assert path.name in str(error)
                frames.append(None)
    return frames


def differences(path: Path, metadata: VideoMetadata, truth: Sequence[np.ndarray | None]) -> list[str]:
    """Return the frames that are not those of a full decode, read alone and in sequence, by both decoders."""
    faults, numbers = [], list(range(metadata.times.count))
    for by_pyav in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            if by_pyav:
                patch.setattr(encoded, "open_fast_decoder", lambda *arguments, **settings: None)
            alone = [luma(path, metadata, [number])[0] for number in numbers]
            for way, frames in (("alone", alone), ("in sequence", luma(path, metadata, numbers))):
                for number, frame in enumerate(frames):
                    right = number < len(truth) and np.array_equal(frame, truth[number])
                    if frame is not None and not right:
                        faults.append(f"frame {number} {way}{', by PyAV' * by_pyav}")
    return faults


def outcome(path: Path) -> Outcome:
    """Read a mutated file in every way."""
    scans = {}
    for verify in ("decode", "packets"):
        try:
            scans[verify] = stored_metadata(probe(path, verify=verify))
        except SourceError as error:
            assert path.name in str(error)
    metadata, counted = scans.get("decode"), scans.get("packets")
    reported = len(scans) < 2 or metadata.error is not None or metadata.damaged.size > 0
    faults, unseen = [], []
    if metadata is not None:
        faults = differences(path, metadata, decoded_by_program(path))
        # The program may be another version than PyAV's: before 7 it puts out HEVC frames without those that they need.
        if faults:
            faults = differences(path, metadata, decoded_by_pyav(path)[1])
    if counted is not None and (metadata is None or metadata_to_row(counted) != metadata_to_row(metadata)):
        stamps, frames = decoded_by_pyav(path)
        if counted.ticks is not None:  # a packet of which no frame comes has a number, and reading it raises
            frame_at = dict(zip(stamps, frames, strict=True))
            frames = [frame_at.get(stamp) for stamp in counted.ticks.stamps().tolist()]
        unseen = differences(path, counted, frames)
    frame_count = 0 if metadata is None else metadata.times.count
    return Outcome(reported, faults, unseen, counted is not None and counted.times.count > frame_count)


def fuzz(streams: dict[str, Path], seeds: Sequence[int], folder: Path) -> tuple[int, int, dict[str, list[str]]]:
    """Return how many files report damage, of how many packets gave other frames, and the faults by file.

    It is a fault if a scan of packets has more frames than a scan that decodes.
    """
    reported, unseen, faults = 0, 0, dict[str, list[str]]()
    names, spans = list(streams), {name: slices(path) for name, path in streams.items()}
    for seed in seeds:
        name = names[seed % len(names)]
        kind, data = mutate_video(streams[name], spans[name], seed=seed)
        path = folder / f"{seed}-{name}"
        path.write_bytes(data)
        came = outcome(path)
        reported, unseen = reported + came.reported, unseen + bool(came.unseen)
        if came.faults or came.promises_more:
            faults[f"{path.name} ({kind})"] = came.faults[:3] + ["packets promise more"] * came.promises_more
        path.unlink()
    return reported, unseen, faults


def test_healthy_files_report_nothing(streams, other_streams):
    for name, path in (streams | other_streams).items():
        assert outcome(path) == Outcome(False, [], []), name


def test_a_frame_for_another_is_noticed(streams):
    """The comparison can fail, for each frame in each of the four ways."""
    path = next(iter(streams.values()))
    metadata, truth = stored_metadata(probe(path)), decoded_by_program(path)
    assert len(differences(path, metadata, truth[1:] + truth[:1])) == 4 * metadata.times.count


def test_mutated_videos(streams, tmp_path):
    assert_right(streams, FAST, tmp_path)


def test_mutated_videos_of_other_codecs(other_streams, tmp_path):
    assert_right(other_streams, FAST_OTHERS, tmp_path)


def test_damage_that_ffmpeg_does_not_mark(streams, other_streams, tmp_path):
    assert fuzz(streams, UNMARKED, tmp_path)[2] == {}
    assert fuzz(other_streams, UNMARKED_OTHERS, tmp_path)[2] == {}


def test_packets_without_a_frame(streams, other_streams, tmp_path):
    assert fuzz(streams, REFUSED, tmp_path)[2] == {}
    assert fuzz(other_streams, REFUSED_OTHERS, tmp_path)[2] == {}


@pytest.mark.slow
@pytest.mark.skipif("CINEFEED_FUZZ_SEEDS" not in os.environ, reason="takes hours: CINEFEED_FUZZ_SEEDS=all, or 12,77")
@pytest.mark.parametrize("others", [False, True])
def test_chosen_or_many_mutated_videos(others, request, tmp_path, capsys):
    seed_range = os.environ["CINEFEED_FUZZ_SEEDS"]
    every = MANY_OTHERS if others else MANY
    with capsys.disabled():
        assert_right(
            request.getfixturevalue("other_streams" if others else "streams"),
            every if seed_range == "all" else [int(each) for each in seed_range.split(",")],
            tmp_path,
        )


def assert_right(streams: dict[str, Path], seeds: Sequence[int], folder: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    reported, unseen, faults = fuzz(streams, seeds, folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"\n{len(seeds)} files, {reported} report damage, {unseen} unseen by packets, {len(faults)} wrong", faults)
    assert faults == {}
    assert not sys.platform.startswith("linux") or peak - before < MOST_MB
    if len(seeds) >= len(FAST_OTHERS):
        assert unseen <= max(MOST_UNSEEN * len(seeds), 2)
        assert reported >= LEAST_REPORTED * len(seeds)
