import numpy as np
import pyarrow as pa
import pytest

from cinefeed.data.manifest.columns import (
    METADATA_COLUMNS,
    RESERVED,
    metadata_columns,
    metadata_to_row,
    row_to_metadata,
)
from cinefeed.data.manifest.fingerprint import fingerprint
from cinefeed.video.metadata import VideoMetadata
from cinefeed.video.timestamps import FrameTimes, Timestamps

NAN = float("nan")


def metadata(**changes):
    return VideoMetadata(
        **{"height": 4, "width": 6, "channels": 1, "bits": 12, "times": FrameTimes(0.0, NAN, 3), **changes}
    )


def back(*many):
    """Return metadata after a round trip through Arrow columns."""
    table = pa.Table.from_pylist([metadata_to_row(each) for each in many], pa.schema(METADATA_COLUMNS))
    return [row_to_metadata(metadata_columns(table), row) for row in range(len(many))]


def assert_same(result, expected):
    for name in "height width channels bits container codec pixel_format rotation header_frames error".split():
        assert getattr(result, name) == getattr(expected, name), name
    np.testing.assert_equal(result.rate_hz, expected.rate_hz)
    assert (result.ticks is None) == (expected.ticks is None)
    for name in "first_seconds step_seconds count listed".split():
        np.testing.assert_equal(getattr(result.times, name), getattr(expected.times, name), name)
    for name in "first step count base listed".split() if expected.ticks else ():
        np.testing.assert_equal(getattr(result.ticks, name), getattr(expected.ticks, name), name)
    np.testing.assert_array_equal(result.key_frames, expected.key_frames)
    assert result.key_frames.dtype == np.int32


REGULAR = Timestamps(106496, 512, 9, (1, 12800))
IRREGULAR = Timestamps(0, 512, 4, (1, 12800), np.array([0, 1536, 512, 2048]))
CASES = [
    metadata(),
    metadata(times=FrameTimes(0.0, 0.04, 3), rate_hz=25.0),
    metadata(times=FrameTimes(1.5, 0.04, 3)),
    metadata(times=FrameTimes(0.0, NAN, 3, np.array([0.0, 0.1, 0.5]))),
    metadata(
        times=REGULAR.times(start_seconds=0.0),
        ticks=REGULAR,
        key_frames=np.array([0, 8], np.int32),
        codec="h264",
        rotation=90,
    ),
    metadata(
        times=IRREGULAR.times(start_seconds=0.0), ticks=IRREGULAR, error="breaks", header_frames=5, container="mp4"
    ),
]


def test_metadata_comes_back_as_they_were():
    for result, expected in zip(back(*CASES), CASES, strict=True):
        if expected.ticks is None and expected.times.first_seconds:  # kept as a list, which says the same
            expected = metadata(times=FrameTimes(1.5, NAN, 3, expected.times.seconds()))
        assert_same(result, expected)
    for case in CASES:  # a column without a gap is read another way
        assert back(case)[0].times.count == case.times.count


def test_the_comparison_can_fail():
    with pytest.raises(AssertionError):
        assert_same(metadata(key_frames=np.array([0], np.int32)), metadata())
    with pytest.raises(AssertionError):
        assert_same(
            metadata(times=IRREGULAR.times(start_seconds=0.0), ticks=IRREGULAR),
            metadata(times=REGULAR.times(start_seconds=0.0), ticks=REGULAR),
        )


def table(**changes):
    columns = {
        "id": ["a", "b"],
        "path": ["a.mp4", "b.mp4"],
        "size_bytes": [1, 2],
        "mtime_ns": [5, 6],
        "error": [None, "/home/me/b.mp4 breaks"],
        "num_frames": [9, 4],
        "ticks": [None, [0, 1, 5, 6]],
        "age": [61.0, None],
        "view": ["4ch", None],
        "flag": [True, False],
        **changes,
    }
    return pa.table({name: pa.array(values, RESERVED.get(name)) for name, values in columns.items() if values})


def test_the_fingerprint_sees_rows_sizes_index_and_labels():
    fingerprints = {fingerprint(table())}
    for changes in (
        {"path": ["a.mp4", "c.mp4"]},
        {"path": ["a.mp", "4b.mp4"]},
        {"id": ["a", "c"]},
        {"size_bytes": [1, 3]},
        {"num_frames": [9, 5]},
        {"ticks": [None, [0, 1, 5, 7]]},
        {"ticks": [[0, 1, 5, 6], None]},
        {"age": [61.0, 0.0]},
        {"age": [None, 61.0]},
        {"view": ["4ch", ""]},
        {"view": ["4c", "h"]},
        {"flag": [True, True]},
        {"split": ["train", "test"]},
        {"group": ["train", "test"]},
        {"day": pa.array([1, 2], pa.date32())},
    ):
        fingerprints.add(fingerprint(table(**changes)))
    assert len(fingerprints) == 16
    assert fingerprint(table().take([1, 0])) not in fingerprints


def test_the_fingerprint_does_not_see_the_machine():
    one = fingerprint(table())
    assert fingerprint(table(mtime_ns=[7, 8])) == one
    assert fingerprint(table(error=[None, "/mnt/b.mp4 breaks"])) == one
    assert fingerprint(table().select(table().schema.names[::-1])) == one
    assert fingerprint(table(part=[None, None])) == one
    doubled = pa.concat_tables([table(), table()])
    assert doubled.column("path").num_chunks == 2
    assert fingerprint(doubled) == fingerprint(doubled.combine_chunks())
    assert fingerprint(doubled.slice(2)) == fingerprint(doubled.combine_chunks().slice(2)) == one
