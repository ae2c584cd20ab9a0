"""Bits flipped anywhere in a manifest give an error, or the same table; never another one."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import cinefeed as cf
from cinefeed.core.errors import CinefeedError, TableError
from cinefeed.data.manifest.parquet import DIGEST, NOTES, read_parquet_table, table_digest
from cinefeed.data.manifest.write_table import write_table


@pytest.fixture
def written(manifest, tmp_path):
    path = tmp_path / "m.parquet"
    manifest.write(path)
    return path


def flipped(raw, rng, *, first=0):
    """Return bytes with one to three bits changed, from a place on."""
    changed = bytearray(raw)
    for place in rng.integers(first, len(raw), int(rng.integers(1, 4))):
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def outcome(path, before):
    """Return "same", or "error"; fail where a flip gives another manifest."""
    try:
        manifest = cf.Manifest.read(path)
    except CinefeedError as error:
        assert str(path) in str(error)
        return "error"
    assert manifest.table.equals(before.table) and manifest.table.schema.equals(before.table.schema)
    assert (manifest.root, manifest.history, manifest.notes) == (before.root, before.history, before.notes)
    return "same"


@pytest.mark.parametrize("part", ["whole", "footer"])
def test_flipped_bits_never_give_another_manifest(written, part):
    before, raw = cf.Manifest.read(written), written.read_bytes()
    footer = len(raw) - 8 - int.from_bytes(raw[-8:-4], "little")
    rng, errors = np.random.default_rng(17), []
    for _ in range(300):
        changed = flipped(raw, rng, first=footer if part == "footer" else 0)
        written.write_bytes(changed)
        errors.append(outcome(written, before))
    assert errors.count("error") > 150


def test_the_same_flips_went_unseen_without_a_digest(manifest, tmp_path):
    """The comparison can fail: page checksums alone let flips in the footer through."""
    path = tmp_path / "m.parquet"
    manifest.write(path)
    table = pq.read_table(path)
    path = tmp_path / "plain.parquet"
    pq.write_table(table.replace_schema_metadata(None), path, write_page_checksum=True)
    raw, rng, other = path.read_bytes(), np.random.default_rng(17), 0
    for _ in range(300):
        path.write_bytes(flipped(raw, rng))
        try:
            other += not read_parquet_table(path).equals(table)
        except (pa.ArrowException, OSError, TableError, ValueError):
            continue
    assert other


def test_pages_of_predictions_have_checksums(tmp_path):
    table = pa.table({"id": [str(n) for n in range(500)], "score": np.random.default_rng(0).random(500)})
    path = tmp_path / "p.parquet"
    write_table(path, [table])
    raw = bytearray(path.read_bytes())
    scores = pq.ParquetFile(path).metadata.row_group(0).column(1)
    raw[scores.dictionary_page_offset + scores.total_compressed_size // 2] ^= 1
    path.write_bytes(raw)
    with pytest.raises((pa.ArrowException, OSError), match="CRC"):
        read_parquet_table(path)
    assert pq.read_table(tmp_path / "p.parquet", columns=["id"]).num_rows == 500


def test_a_table_changed_by_another_program_is_no_manifest_any_more(written):
    table = pq.read_table(written)
    pq.write_table(table.drop_columns(["age"]), written)
    with pytest.raises(TableError, match=r"m\.parquet is damaged, or another program changed it.*from_table"):
        cf.Manifest.read(written)
    with pytest.raises(TableError, match="digest differs"):
        cf.Manifest.from_table(written)
    pq.write_table(table.drop_columns(["age"]).replace_schema_metadata(None), written)
    assert len(cf.Manifest.read(written)) == 11
    pq.write_table(table.replace_schema_metadata({NOTES: table.schema.metadata[NOTES]}), written)
    with pytest.raises(TableError, match="no digest"):
        cf.Manifest.read(written)


def test_the_digest_is_of_values_names_types_order_and_notes():
    table = pa.table({"a": [1, 2], "b": ["x", None], "c": [[1.0], [2.0, 3.0]], "d": [True, False]})
    others = [
        table.rename_columns(["a", "e", "c", "d"]),
        table.select(["b", "a", "c", "d"]),
        table.set_column(0, "a", pa.array([1, 2], pa.int32())),
        table.set_column(3, "d", pa.array([1, 0], pa.uint8())),
        table.set_column(1, "b", pa.array(["x", ""])),
        table.set_column(2, "c", pa.array([[1.0, 2.0], [3.0]])),
        table.slice(1),
        table.append_column("e", pa.nulls(2)),
    ]
    digests = {table_digest(each, b"notes") for each in [table, *others]} | {table_digest(table, b"other")}
    assert len(digests) == len(others) + 2
    cut = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    assert table_digest(cut, b"notes") == table_digest(table, b"notes")
    assert DIGEST not in (table.schema.metadata or {})
