"""Names with escape sequences, HTML and line breaks do nothing in a terminal or in methods.md."""

import sys

import numpy as np
import pyarrow as pa

import cinefeed as cf
from cinefeed.cli import main
from cinefeed.cli.show import note
from cinefeed.core.text import markdown_text, one_line, terminal_text
from cinefeed.reports.methods import Item, Methods

HOSTILE = "a\x1b]0;owned\x07\x1b[2J\r<img src=http://x>\u202e"


def test_nothing_that_a_terminal_obeys_is_left():
    every = "".join(map(chr, range(0x3000))) + "\U000e0041\udc80"
    line = one_line(every)
    assert line.isprintable() or not {each for each in line if not each.isprintable() and ord(each) < 0xA0}
    assert not set(line) & set("\x1b\x07\r\n\x9b\x7f\u202e\u2028\udc80")
    assert one_line("Ménière ä 中 🫀 x") == "Ménière ä 中 🫀 x"
    assert terminal_text("a\nb\x1b") == "a\nb\\x1b"


def test_a_manifest_shows_hostile_names_harmlessly(tmp_path):
    table = pa.table({"path": ["a.npy"], "site": [HOSTILE + "\nfake line"], "x\x1b[1m": [1]})
    np.save(tmp_path / "a.npy", np.zeros((3, 8, 8), np.uint8))
    text = str(cf.Manifest.from_table(table, root=tmp_path))
    assert "\x1b" not in text and "\r" not in text and "\nfake" not in text
    assert "\\x1b" in text


def test_errors_and_notes_of_the_command(tmp_path, capsys):
    assert main(["scan", str(tmp_path / f"no{HOSTILE}"), "--out", str(tmp_path / "m.parquet")]) == 2
    note(f"{HOSTILE}: broken")
    output = capsys.readouterr().err
    assert "\x1b" not in output and "\x07" not in output and "\\x1b" in output
    assert len(output.splitlines()) == 2
    assert sys.stderr is not None


def test_methods_hold_no_html_links_or_lines_of_others():
    hostile = f"{HOSTILE}\n# heading ![x](http://y) <!-- written by cinefeed"
    text = Methods(hostile, (("S", (Item("1", "Title", f"The column {hostile} & `x`."),)),)).markdown()
    assert "<img" not in text and "\x1b" not in text and "\n# heading" not in text and "![" not in text
    assert text.count("<!--") == 1  # the seal alone
    assert "&lt;img" in text and "&amp; `x`" in text
    assert markdown_text("ejection_fraction (4ch)") == "ejection_fraction (4ch)"
