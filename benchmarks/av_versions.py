"""The same clips read with several versions of PyAV, side by side: which decoder runs, how fast, and the same bytes.

    python -m benchmarks.av_versions 17.1 18.1 19.0 [--data ../shared/data] [--clips 40] [--rounds 5]

The versions are installed in a folder of their own, without touching this environment; the rest is as it is here, so
PyAV 19 needs Python 3.12. Sets, clips and readers are those of `benchmarks.sources`; each version runs in a process of
its own, in turn, `rounds` times. Seconds are those of the processor. Exits with 1 where bytes differ or PyAV decodes.
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import av
import cv2

from benchmarks.sources import SETS, asks_of, ours, pyav, write_long_gop
from cinefeed.video.ffmpeg.decoder import decoder_choice


def measure(places: dict[str, Path], *, clips: int) -> dict[str, Any]:
    """Return what this process's PyAV reads: clips a second of each set, ours and by PyAV alone, and a digest."""
    cv2.setNumThreads(1)
    results: dict[str, Any] = {
        "av": av.__version__,
        "decoder": decoder_choice().name,
        "reason": decoder_choice().reason,
    }
    for name, place in places.items():
        asks = asks_of(place, clips=clips)
        for channels in (1, 3):
            ours(asks[0], channels)  # compiled
            began = time.process_time()
            read = [ours(ask, channels) for ask in asks]
            middle = time.process_time()
            for ask in asks:
                pyav(ask, channels)
            ended = time.process_time()
            results[f"{name}, {'grey' if channels == 1 else 'RGB'}"] = {
                "cinefeed": clips / (middle - began),
                "PyAV": clips / (ended - middle),
                "digest": hashlib.sha256(b"".join(each.tobytes() for each in read)).hexdigest()[:12],
            }
    return results


def in_a_process(place: Path, arguments: list[str]) -> dict[str, Any]:
    """Run `measure` with the PyAV of a folder."""
    path = os.pathsep.join([str(place), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "benchmarks.av_versions", "--measure", *arguments]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def show(runs: dict[str, list[dict[str, Any]]], sets: list[str]) -> bool:
    """Print the table; return whether compiled code read everywhere, and the same bytes."""
    names = ["PyAV " + each[0]["av"] for each in runs.values()]
    print(f"{'':18}" + "".join(f"{name:>18}" for name in names) + "   digests")
    print(f"{'decoder':18}" + "".join(f"{each[0]['decoder']:>18}" for each in runs.values()))
    alike = all(run["decoder"] == "compiled" for each in runs.values() for run in each)
    for title in (f"{name}, {colour}" for name in sets for colour in ("grey", "RGB")):
        digests = {run[title]["digest"] for each in runs.values() for run in each}
        alike = alike and len(digests) == 1
        for reader in ("cinefeed", "PyAV"):
            medians = (statistics.median(run[title][reader] for run in each) for each in runs.values())
            line = f"{title if reader == 'cinefeed' else '  by PyAV alone':18}" + "".join(f"{m:18.1f}" for m in medians)
            print(line + (f"   {', '.join(sorted(digests))}" if reader == "cinefeed" else ""))
    return alike


def main() -> int:
    """Install, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="*", default=["17.1", "18.1", "19.0"])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=SETS)
    parser.add_argument("--measure", action="store_true", help="of the PyAV that is imported, as JSON")
    parser.add_argument("--long-gop", type=Path, help="folder of the set that is generated")
    args = parser.parse_args()
    sets = [args.only] if args.only else SETS
    if args.measure:
        places = {name: args.long_gop if name == "long GOP" else args.data / name for name in sets}
        print(json.dumps(measure(places, clips=args.clips)))
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "long").mkdir()
        if "long GOP" in sets:
            write_long_gop(folder / "long")
        arguments = ["--data", str(args.data), "--clips", str(args.clips), "--long-gop", str(folder / "long")]
        arguments += ["--only", args.only] if args.only else []
        for version in args.versions:
            install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:"]
            subprocess.run([*install, "--target", str(folder / version), f"av=={version}.*"], check=True)
        runs: dict[str, list[dict[str, Any]]] = {version: [] for version in args.versions}
        for _ in range(args.rounds):
            for version, each in runs.items():
                each.append(in_a_process(folder / version, arguments))
    return 0 if show(runs, sets) else 1


if __name__ == "__main__":
    sys.exit(main())
