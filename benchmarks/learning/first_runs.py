"""The first run of a newcomer, `cinefeed init` and `cinefeed train` with nothing changed, beside its baselines.

Run: python -m benchmarks.learning.first_runs gait --videos FOLDER --out FOLDER
     python -m benchmarks.learning.first_runs add NAME --settings FILE.toml --run FOLDER [--note TEXT]
     python -m benchmarks.learning.first_runs

`gait` prepares a set. `add` appends the figures of a finished run to first_runs.jsonl beside this file; the last line
prints the published table. A run is made by `cinefeed scan FOLDER --labels labels.csv --out NAME.parquet`,
`cinefeed init NAME.parquet --target ... --out NAME.toml` and `cinefeed train --config NAME.toml`. Another seed is that
of the split and of the feed, in NAME.toml.

gait    340 clips of 3 s of ten people who walk towards a camera in one corridor, steadily or with a played disorder:
        github.com/Woyibusi/GaitPrediction, folder data/raw; no licence is stated, so it is not part of this project.
        The 44 clips of another room and camera are left out, as they would give the label away. The people are told
        apart by their clothes: three are the test part, one is the validation part, six are the training part.
        --target gait --no-group (the column `split` is the split)
lips    566 clips of 30 words: --target word --no-group
pocus   77 lung ultrasound videos, all classes: --target label --group patient_group
"""

import argparse
import csv
import json
import re
import subprocess
from pathlib import Path
from typing import Any

RECORDS = Path(__file__).parent / "first_runs.jsonl"
NAMES = {"constant": "guessing", "columns": "nuisance columns", "thumbnail": "thumbnail", "mean_frame": "mean frame"}
STEADY = range(42, 202)  # numbers of the clips; those from 205 on are unsteady
PEOPLE = {
    "A": "42-61 267-275 277 345-346 356 358-364",
    "B": "62-81 285-286 296 298-304 365-366 376 378-384",
    "C": "82-101 287-295 297 367-375 377",
    "D": "102-121 225-226 236 238-244 325-326 336 338-344",
    "E": "122-141 247-255 257 307-315 317",
    "F": "142-161 245-246 256 258-264 305-306 316 318-324",
    "G": "162-181 265-266 276 278-284 347-355 357",
    "H": "182-201 227-235 237 327-335 337",
    "I": "207-215 217",
    "J": "205-206 216 218-224",
}
PARTS = {"E": "val", "F": "test", "G": "test", "H": "test"}


def main() -> None:
    """Prepare a set, add a record, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(dest="step")
    gait = steps.add_parser("gait")
    gait.add_argument("--videos", type=Path, required=True)
    gait.add_argument("--out", type=Path, required=True)
    one = steps.add_parser("add")
    one.add_argument("name")
    one.add_argument("--settings", type=Path, required=True)
    one.add_argument("--run", type=Path, required=True)
    one.add_argument("--note", default="")
    arguments = parser.parse_args()
    if arguments.step == "gait":
        prepare_gait(arguments.videos, out=arguments.out)
    elif arguments.step == "add":
        record = record_of(arguments.name, settings=arguments.settings, run=arguments.run, note=arguments.note)
        with RECORDS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
    else:
        print(f"{table(read())}\n\n{means(read())}")


def numbers(text: str) -> list[int]:
    """Return the numbers of ranges.

    >>> numbers("3-5 8")
    [3, 4, 5, 8]
    """
    pairs = [each.partition("-") for each in text.split()]
    return [number for low, _, high in pairs for number in range(int(low), int(high or low) + 1)]


def prepare_gait(videos: Path, *, out: Path) -> None:
    """Write small 8-bit copies of the clips (FFmpeg), without sound, and labels.csv with label, person and part."""
    out.mkdir(parents=True, exist_ok=True)
    options = "-an -vf scale=144:256:flags=area -pix_fmt yuv420p -c:v libx264 -preset veryfast -crf 18".split()
    with (out / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "gait", "person", "split"])
        for person, ranges in PEOPLE.items():
            for number in numbers(ranges):
                name = f"video{number:03d}.mp4"
                subprocess.run(["ffmpeg", "-v", "error", "-y", "-i", videos / name, *options, out / name], check=True)
                label = "steady" if number in STEADY else "unsteady"
                writer.writerow([name, label, person, PARTS.get(person, "train")])


def record_of(name: str, *, settings: Path, run: Path, note: str) -> dict[str, Any]:
    """Return the figures of a run of one target: duration as `init` gave it, score, and each baseline."""
    text = settings.read_text(encoding="utf-8")
    duration = re.search(r"about ([\d.]+) (s|min|h) for all", text)
    if duration is None:
        raise ValueError(f"{settings} has no duration; run 'cinefeed init' without --no-timing")
    seconds = float(duration[1]) * {"s": 1, "min": 60, "h": 3600}[duration[2]]
    target = next(iter(json.loads((run / "baselines.json").read_text(encoding="utf-8"))["targets"].values()))
    metric = target["metric"]
    differences = {key: each["difference"] for key, each in target["baselines"].items()}
    return {
        "set": name,
        "note": note,
        "seed": int(re.search(r"^seed = (\d+)", text, re.MULTILINE)[1]),  # type: ignore[index]
        "said_seconds": seconds,
        "seconds": json.loads((run / "run.json").read_text(encoding="utf-8"))["seconds"],
        "metric": metric,
        "units": target["units"],
        **{key: target["metrics"][metric][key] for key in ("value", "low", "high")},
        "baselines": {
            key: {"value": each["a"], **{name: each[name] for name in ("difference", "low", "high")}}
            for key, each in differences.items()
        },
    }


def read() -> list[dict[str, Any]]:
    """Return the published records."""
    return [json.loads(line) for line in RECORDS.read_text(encoding="utf-8").splitlines()]


def table(records: list[dict[str, Any]]) -> str:
    """Return a Markdown table: a line for each run, with the difference to each baseline and its 95 % interval."""
    lines = [
        "| run | minutes: stated, taken | test | " + " | ".join(f"minus the {name}" for name in NAMES.values()) + " |",
        "| --- | --- | --- |" + " --- |" * len(NAMES),
    ]
    for each in records:
        note = f", {each['note']}" if each["note"] else ""
        cells = [
            f"{each['set']}{note}, seed {each['seed']}",
            f"{each['said_seconds'] / 60:.1f}, {each['seconds'] / 60:.1f}",
            f"{each['metric'].replace('_', ' ')} {_interval(each, key='value')}, {each['units']} videos",
            *(_difference(each["baselines"].get(name)) for name in NAMES),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def means(records: list[dict[str, Any]]) -> str:
    """Return a line for each set with several seeds: the mean score, and the mean difference to the thumbnail."""
    by_set: dict[str, list[dict[str, Any]]] = {}
    for each in records:
        by_set.setdefault(each["set"], []).append(each)
    return "\n".join(
        f"* {name}, mean of {len(runs)} seeds: {sum(each['value'] for each in runs) / len(runs):.3f}, minus the "
        f"thumbnail {sum(each['baselines']['thumbnail']['difference'] for each in runs) / len(runs):+.3f}"
        for name, runs in by_set.items()
        if len(runs) > 1
    )


def _difference(baseline: dict[str, Any] | None) -> str:
    return "" if baseline is None else f"{_interval(baseline, key='difference', sign='+')}, at {baseline['value']:.3f}"


def _interval(values: dict[str, Any], *, key: str, sign: str = "") -> str:
    """Return a value with its interval, if there is one.

    >>> _interval({"value": 0.5, "low": 0.4, "high": 0.625}, key="value")
    '0.500 (0.400 to 0.625)'
    """
    form = f"{sign}.3f"
    text = format(values[key], form)
    return text if values["low"] is None else f"{text} ({values['low']:{form}} to {values['high']:{form}})"


if __name__ == "__main__":
    main()
