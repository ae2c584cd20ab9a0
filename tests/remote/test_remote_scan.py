"""Scans of remote folders, manifests with a remote root, and what is refused."""

import logging
import re
import shutil

import numpy as np
import pytest
from servers import AWS, file_server, hub_server, s3_server

from cinefeed.cli import main
from cinefeed.core.errors import ChangedFileError, MissingExtraError
from cinefeed.core.remote.address import without_secrets
from cinefeed.core.remote.cache import default_folder
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.data.quality.run_checks import check_manifest


def test_a_scan_of_the_command_line_equals_that_of_local_files(s3, local, tmp_path, caplog, capsys):
    out = tmp_path / "m.parquet"
    with caplog.at_level(logging.WARNING):
        assert main(["scan", s3, "--out", str(out)]) == 0, capsys.readouterr().err
    manifest = Manifest.read(out)
    assert str(manifest.root) == s3
    same = [name for name in local.table.schema.names if name not in ("mtime_ns", "stem", "number", "name")]
    assert manifest.table.select(same).equals(local.table.select(same))
    assert all(tag < 0 for tag in manifest.column("mtime_ns").to_pylist())
    pattern = r"the scan of s3://clips reads (\d+) files whole, .*B: about \d.* at .*B a second"
    assert sum(map(int, re.findall(pattern, caplog.text))) == 40  # arrays to find the samples in them, then the others
    for secret in AWS.values():
        if secret != AWS["AWS_REGION"]:
            assert secret.encode() not in out.read_bytes()
            assert secret not in caplog.text
    members = set((default_folder() / "members").iterdir())
    for row in range(len(manifest)):
        with manifest.open(row):
            assert set((default_folder() / "members").iterdir()) == members  # what the scan fetched
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert main(["scan", s3, "--out", str(out)]) == 0
    assert "whole" not in caplog.text  # nothing has changed, so nothing is read
    assert Manifest.read(out).table.equals(manifest.table)


def test_a_changed_file_is_an_error(videos, local, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(videos, folder)
    local.write(tmp_path / "m.parquet")
    row = next(row for row in range(len(local)) if local.relative_path(row).endswith(".npy"))
    frames = np.load(folder / local.relative_path(row))
    with file_server(folder) as address:
        manifest = Manifest.read(tmp_path / "m.parquet", root=address)
        with manifest.open(row) as source:
            assert np.array_equal(source.read([0, 3])[..., 0], frames[[0, 3]])
        for member in (default_folder() / "members").iterdir():
            shutil.rmtree(member)
        np.save(folder / local.relative_path(row), 255 - frames)
        with pytest.raises(ChangedFileError, match=rf"{address}/.*npy: other content than in the scan"):
            manifest.open(row)
        np.save(folder / local.relative_path(row), frames[:4])
        with pytest.raises(ChangedFileError, match=r"bytes when scanned, .* now; run 'cinefeed scan' again"):
            manifest.open(row)


def test_run_folders_are_left_out_as_in_a_local_scan(videos, behind_proxy, tmp_path):
    pytest.importorskip("moto")
    folder = tmp_path / "copy"
    shutil.copytree(videos, folder)
    (folder / "runs" / "a" / "fold1").mkdir(parents=True)
    for file in ("settings.toml", "spec.json", "checkpoint.npz", "fold1/0.npy"):
        (folder / "runs" / "a" / file).write_bytes((videos / "p0" / "v00.npy").read_bytes())
    with s3_server(folder, bucket="runs") as address:  # a web server cannot be scanned
        behind_proxy(address)
        manifest = Manifest.scan("s3://runs", progress=False)
    local = Manifest.scan(folder, progress=False)
    assert manifest.not_read == local.not_read and manifest.not_read["run folder"] == {"files": 1, "first": ["runs/a"]}
    assert sorted(map(manifest.relative_path, range(len(manifest)))) == sorted(
        map(local.relative_path, range(len(local)))
    )


def test_an_address_in_a_table_is_the_root(web, videos):
    names = ["p0/v00.npy", "p0/v04.npy"]
    manifest = Manifest.from_table({"path": [f"{web}/{name}" for name in names], "age": [3, 4]})
    assert str(manifest.root) == f"{web}/p0"
    with manifest.open(1) as source:
        assert np.array_equal(source.read([5])[0, ..., 0], np.load(videos / names[1])[5])


def test_checks_fetch_what_they_read(s3, local, tmp_path):
    local.write(tmp_path / "m.parquet")
    manifest = Manifest.read(tmp_path / "m.parquet", root=s3)
    assert check_manifest(manifest, workers=1) == check_manifest(local, workers=1)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("cinefeed.core.remote.store.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"obstore is not installed; run: pip install 'cinefeed\[remote\]'"):
        Manifest.scan("s3://bucket/videos", progress=False)
    with pytest.raises(MissingExtraError, match=r"fsspec and huggingface_hub are not installed"):
        Manifest.scan("hf://datasets/owner/name", progress=False)


def test_signatures_do_not_reach_messages():
    text = without_secrets("GET https://me:word@host/a.mp4?X-Amz-Signature=abc failed (see https://host/b?sig=1)")
    assert text == "GET https://...@host/a.mp4?... failed (see https://host/b?...)"


def test_the_hugging_face_hub(videos, local, monkeypatch):
    constants = pytest.importorskip("huggingface_hub.constants")
    with hub_server(videos) as address:
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        manifest = Manifest.scan("hf://datasets/owner/name/p1", progress=False)
        rows = [row for row in range(len(local)) if local.relative_path(row).startswith("p1/")]
        assert manifest.column("content_hash").to_pylist() == [
            local.column("content_hash")[row].as_py() for row in rows
        ]
        with manifest.open(0) as source, local.open(rows[0]) as other:
            assert np.array_equal(source.read([3, 4]), other.read([3, 4]))


def test_names_with_signs(videos, behind_proxy, tmp_path):
    pytest.importorskip("moto")
    names = ["a b/1 + 2.npy", "a b/100%.npy", "a b/#7?.npy", "a b/%20é~&=.npy"]
    for name in names:
        (tmp_path / "web" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(videos / "p0/v00.npy", tmp_path / "web" / name)
    with s3_server(tmp_path / "web", bucket="signs") as s3, file_server(tmp_path / "web") as web:
        behind_proxy(s3)
        manifest = Manifest.scan("s3://signs", progress=False)
        assert sorted(manifest.column("path").to_pylist()) == sorted(names)
        for root in ("s3://signs", web):
            with Manifest.from_table({"path": names}, root=root).open(1) as source:
                assert len(source) == 12


def test_parts_of_a_scan_make_the_manifest_of_a_whole(s3, tmp_path):
    for part in range(2):
        assert main(["scan", s3, "--out", str(tmp_path / "parts"), "--shard", f"{part}/2"]) == 0
    assert main(["merge", str(tmp_path / "parts"), "--out", str(tmp_path / "merged.parquet")]) == 0
    assert main(["scan", s3, "--out", str(tmp_path / "whole.parquet")]) == 0
    assert (tmp_path / "merged.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
