"""`cinefeed pack` on the command line."""

import cinefeed as cf


def test_packing_verifying_and_going_on(cinefeed, manifest, tmp_path):
    out = tmp_path / "packed"
    options = ("--codec", "raw", "--short-side", 8, "--rows-per-shard", 5, "--workers", 0)
    result = cinefeed("pack", manifest, "--out", out, *options, "--json")
    assert result.code == 0, result.err
    assert (result.json["rows"], result.json["shards"], result.json["new_shards"], result.json["failures"]) == (
        12,
        3,
        3,
        [],
    )
    assert len(cf.Manifest.read(out)) == 12 and cf.Manifest.read(out).metadata(0).height == 8
    assert cinefeed("pack", manifest, "--out", out, *options, "--json").json["new_shards"] == 0
    assert cinefeed("pack", out, "--verify").code == 0
    bench = cinefeed("bench", out, "--frame", "16x16x1", "--frames", 3, "--workers", 0, "--seconds", 0.1, "--json")
    assert bench.code == 0 and "packing" not in bench.json
    shard = out / "shards" / "000001.tar"
    content = bytearray(shard.read_bytes())
    content[600] ^= 1
    shard.write_bytes(content)
    result = cinefeed("pack", out, "--verify")
    assert result.code == 1 and "shards/000001.tar, row 5: " in result.out and "1 fault" in result.err


def test_auto_prints_what_it_measured_and_goes_on_with_its_choice(cinefeed, manifest, tmp_path):
    result = cinefeed("pack", manifest, "--out", tmp_path / "packed", "--max-bytes", "1GB", "--workers", 0, "--json")
    assert result.code == 0, result.err
    lines = [line.split()[0] for line in result.err.splitlines()]
    assert lines[-7:] == ["codec", "source", "copy", "raw", "ffv1", "jpeg", "h264"]
    again = cinefeed("pack", manifest, "--out", tmp_path / "packed", "--workers", 0, "--json")
    assert "continued" in again.err and again.json["codec"] == result.json["codec"] and again.json["new_shards"] == 0
    small = cinefeed("pack", manifest, "--out", tmp_path / "small", "--max-bytes", "1kB")
    assert small.code == 2 and "--short-side" in small.err and not (tmp_path / "small" / "pack.json").exists()


def test_what_is_asked_wrongly(cinefeed, manifest, tmp_path):
    for options, message in (
        ((), "--out"),
        (("--out", tmp_path / "a", "--codec", "mp4"), "--codec mp4 is not a choice"),
        (("--out", tmp_path / "a", "--codec", "raw", "--max-bytes", "1GB"), "--codec auto"),
        (("--out", tmp_path / "a", "--codec", "raw", "--size", "12"), "HEIGHTxWIDTH"),
    ):
        result = cinefeed("pack", manifest, *options)
        assert result.code == 2 and message in result.err
    result = cinefeed("pack", tmp_path, "--verify")
    assert result.code == 2 and "not the folder of a packed data set" in result.err
