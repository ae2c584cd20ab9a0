import numpy as np
import pyarrow as pa
import pytest
from made_videos import codes, moving, save, scanned

from cinefeed.data.manifest.manifest import Manifest
from cinefeed.data.quality import check_manifest
from cinefeed.video.clips import Clip


@pytest.fixture
def folder(tmp_path):
    for number in range(4):
        save(tmp_path, f"v{number}.npy", moving(number))
    return tmp_path


def replaced(manifest, **columns):
    table = manifest.table
    for name, values in columns.items():
        array = values if isinstance(values, pa.Array) else pa.array(values, table.schema.field(name).type)
        there = name in table.schema.names
        table = (
            table.set_column(table.schema.names.index(name), name, array) if there else table.append_column(name, array)
        )
    return Manifest(table, root=manifest.root)


def test_alike_videos_are_not_mixed(folder):
    assert not [code for code in codes(check_manifest(scanned(folder), progress=False)) if code.startswith("mixed")]


def test_rates_that_differ_matter_to_a_clip_by_count(folder):
    manifest = replaced(scanned(folder), rate_hz=[10.0, 10.0, 25.0, 50.0], step_seconds=[0.1, 0.1, 0.04, 0.02])
    findings = codes(check_manifest(manifest, clip=Clip(frames=6, stride=2), progress=False))["mixed_rates"]
    assert findings.severity == "warning"
    assert "spans 0.20 to 1.00 s" in findings.detail
    assert "10 in 2" in findings.detail
    for clip in (None, Clip(frames=3, rate_hz=5)):
        assert codes(check_manifest(manifest, clip=clip, progress=False))["mixed_rates"].severity == "note"


def test_sizes_depths_and_channels(folder):
    save(folder, "v4.npy", moving(4, height=90, width=40))
    save(folder, "v5.npy", moving(5).astype(np.uint16) * 256)
    save(folder, "v6.npy", np.repeat(moving(6)[..., None], 3, axis=3))
    findings = codes(check_manifest(scanned(folder), progress=False))
    assert "from 40 x 90 to 80 x 64" in findings["mixed_sizes"].title
    assert findings["mixed_orientations"].title == "1 video in portrait, 6 in landscape format"
    assert "8 in 6, 16 in 1" in findings["mixed_bits"].detail
    assert "1 in 6, 3 in 1" in findings["mixed_channels"].detail
    assert {each.severity for code, each in findings.items() if code.startswith("mixed")} == {"note"}


def test_what_headers_of_series_say(folder):
    notes = pa.array([None, "a single image", None, None])
    burned = pa.array(["NO", "YES", None, "YES"])
    manifest = replaced(scanned(folder), series_note=notes, burned_in=burned)
    manifest = replaced(manifest, spacing_down_mm=pa.array([0.5, None, 0.5, 0.5]))
    findings = codes(check_manifest(manifest, progress=False))
    assert findings["series_notes"].remarks == ("a single image",)
    assert findings["burned_in"].rows == (1, 3)
    assert findings["spacing_missing"].rows == (1,)
    none = replaced(manifest, spacing_down_mm=pa.nulls(4, pa.float64()))
    assert "spacing_missing" not in codes(check_manifest(none, progress=False))
