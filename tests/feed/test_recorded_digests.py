"""Epochs, plans and splits have the digests that were recorded before the code was rearranged.

`recorded_digests.json` is never edited: a change of a digest is a change of the bytes that users are fed. To record
those of a new set, delete nothing, and run this file as a program: it adds the sets that are missing.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from epoch_digests import CATALOGUE, SAMPLERS, digest, make

import cinefeed as cf

RECORDED = Path(__file__).with_name("recorded_digests.json")
PACKAGES = ("av", "numpy", "opencv-python-headless")  # whose pixels and random numbers are in the digests
FOLDERS = ("lips", "pocus", "arrays", "dicom")


def with_made_labels(table, *, root):
    """Return a manifest with a skewed number and a skewed name for each row, in the order of paths."""
    rows, table = np.arange(len(table)), table.sort_by([("path", "ascending"), ("id", "ascending")])
    table = table.append_column("number", pa.array((rows * rows % 97) ** 2 / 100.0))
    table = table.append_column("name", pa.array(np.array(["often", "rare", "often", "seldom", "often"])[rows % 5]))
    table = table.append_column("subject", pa.array([f"s{row // 3}" for row in rows]))
    return cf.Manifest(table, root=root)


def manifest_of(folder, *, data, made):
    """Return the manifest of a folder of real videos, or of arrays that are made here."""
    if folder == "arrays":
        rng = np.random.Generator(np.random.Philox(7))
        for number in range(40):
            np.save(made / f"{number:02}.npy", rng.integers(0, 256, (20, 50, 60), dtype=np.uint8))
        return with_made_labels(cf.Manifest.scan(made, progress=False).table, root=made)
    reading = cf.ReadOptions(salt="digests")
    table = cf.Manifest.scan(data / folder, verify="packets", progress=False, reading=reading).table
    if folder == "dicom":  # a feed of several ranges needs a window
        table = table.filter(pc.and_(pc.equal(table["bits"], 8), pc.greater_equal(table["num_frames"], 2)))
    return with_made_labels(table, root=data / folder)


def digests_of(folder, *, data, made):
    """Return digests by name: epochs with each sampler and with all transforms, plans, and the parts of a split."""
    manifest = manifest_of(folder, data=data, made=made)
    colour = cf.Frame(height=48, width=48, channels=3)
    settings = {f"sampler {name}": {"sampler": name} for name in SAMPLERS} | {
        "no transforms": {"transforms": [], "frame": colour},
        "catalogue": {"transforms": CATALOGUE, "frame": colour},
        "catalogue, reversed": {"transforms": [*CATALOGUE[::-1][1:], CATALOGUE[-1]], "frame": colour},
    }
    digests = {name: digest(*make(manifest, workers=2, **changes)) for name, changes in settings.items()}
    for name, changes in SAMPLERS.items():
        labels = manifest.table[changes.get("target", "number")].to_numpy()
        plans = [changes["sampler"].plan(labels, seed=7, epoch=epoch) for epoch in range(3)]
        digests[f"plan {name}"] = digest(*(plan.rows for plan in plans))
    parts = manifest.split(val=0.2, test=0.2, group="subject", stratify="number", seed=7)
    for name in ("train", "val", "test"):
        digests[f"split {name}"] = digest(np.array(getattr(parts, name).table["path"].to_pylist()))
    return digests


def versions():
    """Return the versions of the packages that decode, move and draw."""
    return {name: version(name) for name in PACKAGES}


@pytest.mark.parametrize("folder", FOLDERS)
def test_bytes_are_those_recorded(data, tmp_path, folder):
    recorded = json.loads(RECORDED.read_text())
    if recorded["versions"] != versions():
        pytest.skip(f"the digests are of {recorded['versions']}, installed are {versions()}")
    digests = digests_of(folder, data=data, made=tmp_path)
    assert digests == recorded[folder]
    assert len(set(digests.values())) == len(digests)  # each setting shows


def record(data, made):
    """Add the digests that are not recorded yet."""
    recorded = json.loads(RECORDED.read_text()) if RECORDED.is_file() else {"versions": versions()}
    if recorded["versions"] != versions():
        raise SystemExit(f"the digests are of {recorded['versions']}, installed are {versions()}")
    for folder in FOLDERS:
        if folder not in recorded:
            recorded[folder] = digests_of(folder, data=data, made=made)
    RECORDED.write_text(json.dumps(recorded, indent=1) + "\n")


if __name__ == "__main__":
    record(Path(__file__).parents[3] / "shared" / "data", Path(sys.argv[1]))
