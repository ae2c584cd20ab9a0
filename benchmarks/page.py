"""The benchmarks page: Markdown and one chart of the rows that were measured. Nothing is timed here."""

import os
import platform
import statistics
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.rows import Result, Row
from cinefeed.core.cores import usable_cores
from cinefeed.reports.style import BLUE, GREY, INK, VERMILION, new_figure, plain, to_svg

PACKAGES = """
    cinefeed numpy opencv-python-headless numba av torch keras torchcodec spdl decord albumentations kornia grain
    litdata webdataset scipy
""".split()


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page: its title, its command, the text above its table, and why peers win in it, if one does."""

    title: str
    command: str
    text: str
    why: str
    result: Result


def write_page(folder: Path, sections: Sequence[Section], *, head: str) -> Path:
    """Write `benchmarks.md` and `benchmarks.svg` into a folder; return the path of the page."""
    page = folder / "benchmarks.md"
    page.write_text(markdown(sections, head=head), encoding="utf-8")
    (folder / "benchmarks.svg").write_text(chart(sections), encoding="utf-8")
    return page


def markdown(sections: Sequence[Section], *, head: str) -> str:
    """Return the page; `head` is the text below its title."""
    paragraphs = [_wrapped(paragraph) for paragraph in head.strip().split("\n\n")]
    lines = ["# Benchmarks", "", *"\n\n".join(paragraphs).splitlines(), ""]
    rows = [row for section in sections for row in section.result.rows]
    if any(row.fastest_peer() for row in rows):
        lines += ["![How many times better cinefeed is than the best peer of each row](benchmarks.svg)", ""]
        lines += _summary(sections)
    for section in sections:
        lines += [f"## {section.title}", "", _wrapped(section.text), "", f"`{section.command}`", ""]
        lines += section_table(section.result.rows)
        lines += [f"{problem}\n" for problem in section.result.problems]
        lines += _why(section)
    return "\n".join(lines).rstrip() + "\n"


def _summary(sections: Sequence[Section]) -> list[str]:
    lines = ["| | unit | cinefeed | peer | best peer | cinefeed / peer |", "| --- | --- | --- | --- | --- | --- |"]
    for section in sections:
        for row in section.result.rows:
            if (peer := row.fastest_peer()) is not None:
                values = [_number(statistics.median(each.values)) for each in (row.contestants[0], peer)]
                cells = [f"{section.title}: {row.what}", row.unit, *values, peer.name, _ratio(row.ratios(peer))]
                lines.append(_line(cells))
    return [*lines, ""]


def section_table(rows: Iterable[Row]) -> list[str]:
    """Return the Markdown tables of rows, each below a line about it, as lines."""
    lines: list[str] = []
    for row in rows:
        better = "" if row.higher_is_better else ", less is better"
        lines += [_wrapped(f"**{row.what}**, {row.unit}{better}. {row.check}"), ""]
        lines += ["| | median | from, to | cinefeed / peer | frames |", "| --- | --- | --- | --- | --- |"]
        for each in row.contestants:
            name = f"{each.name}, {each.note}" if each.note else each.name
            is_ours = each is row.contestants[0]
            if not each.values:
                lines.append(_line([name, "not measured", "", "", each.problem]))
                continue
            if each.problem:
                ratio, frames = "no ratio", each.problem
            else:
                ratio = "" if is_ours or not each.is_peer else _ratio(row.ratios(each))
                frames = "the same" if each.is_peer and not is_ours else ""
            spread = f"{_number(min(each.values))}, {_number(max(each.values))}" if len(each.values) > 1 else ""
            lines.append(_line([name, _number(statistics.median(each.values)), spread, ratio, frames]))
        lines.append("")
    return lines


def _why(section: Section) -> list[str]:
    """Return which peers win in a section, and why."""
    winners = [
        f"{each.name} ({row.what})"
        for row in section.result.rows
        for each in row.contestants[1:]
        if each.is_peer and (ratios := row.ratios(each)) and statistics.median(ratios) < 1
    ]
    if not winners:
        return []
    text = f"**A peer is better here:** {'; '.join(winners)}. {section.why or 'Why is not known yet.'}"
    return [_wrapped(text), ""]


def _ratio(ratios: Sequence[float]) -> str:
    middle = statistics.median(ratios)
    text = f"{_number(middle)}" + (f" ({_number(min(ratios))} to {_number(max(ratios))})" if len(ratios) > 1 else "")
    return f"**{text}: the peer wins**" if middle < 1 else text


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def _number(value: float) -> str:
    """Return three digits, or all before the point.

    >>> _number(1234.5), _number(12.34), _number(0.01234)
    ('1,234', '12.3', '0.0123')
    """
    if abs(value) >= 100:
        return f"{value:,.0f}"
    digits = f"{value:#.3g}"
    return digits if "e" not in digits else f"{value:.2g}"


def chart(sections: Sequence[Section]) -> str:
    """Return the ratios to the best peer of each row as SVG, with their range, on an axis of powers of ten."""
    entries = [
        (f"{section.title}: {row.what}", peer.name, row.ratios(peer))
        for section in sections
        for row in section.result.rows
        if (peer := row.fastest_peer()) is not None
    ]
    with new_figure(12.0, 1.1 + 0.3 * max(len(entries), 1)) as figure:
        axes = figure.subplots()
        axes.set_xscale("log")
        axes.axvline(1.0, color=INK, linewidth=1.0)
        for place, (_, peer_name, ratios) in enumerate(entries):
            middle = statistics.median(ratios)
            colour = BLUE if middle >= 1 else VERMILION
            axes.plot([min(ratios), max(ratios)], [place, place], color=colour, linewidth=1.2)
            axes.plot([middle], [place], "o", color=colour, markersize=6)
            label = f"{_number(middle)} times {plain(peer_name)}"
            axes.annotate(
                label,
                (max(ratios), place),
                (7, 0),
                textcoords="offset points",
                va="center",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0},  # above the line at 1
            )
        axes.set_yticks(range(len(entries)), [_shortened(name) for name, _, _ in entries])
        axes.set_ylim(max(len(entries), 1) - 0.5, -0.5)
        ratios_of_all = [ratio for _, _, ratios in entries for ratio in ratios] or [1.0]
        low, high = min(ratios_of_all), max(ratios_of_all)
        axes.set_xlim(min(low, 1.0) * 0.8, high * (high / min(low, 1.0)) ** 0.7 * 4)  # room for the labels
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("cinefeed / best peer, median and range of the runs; below 1 the peer wins")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.tick_params(axis="x", which="minor", color=GREY)
        return to_svg(figure, name="benchmarks")


def _shortened(text: str, limit: int = 80) -> str:
    text = text.replace("`", "")
    return (text if len(text) <= limit else text[: limit - 1] + "…").replace("$", r"\$")


def machine() -> str:
    """Return the processor, cores, memory, system and Python of this machine."""
    names = [line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    total = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    processor = names[0] if names else platform.processor() or platform.machine()
    system = f"{platform.system()} {platform.release().split('-')[0]}, Python {platform.python_version()}"
    return f"{processor}, {usable_cores()} of {os.cpu_count()} cores, {total / 2**20:.0f} GiB, {system}, no GPU used"


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def versions(names: Iterable[str] = PACKAGES) -> Mapping[str, str]:
    """Return the versions of installed packages by name; those that are absent are named "not installed"."""
    result = {}
    for name in names:
        try:
            result[name] = version(name)
        except PackageNotFoundError:
            result[name] = "not installed"
    return result
