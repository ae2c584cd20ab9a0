"""Finding and probing many small files: the seconds of a scan, by kind of file.

Run it with `python -m benchmarks.scanning [--files 10000] [--runs 3]`, or `--code OTHER/src` to measure another version
of the code beside this one, run by run in turn, each in a process of its own. Files are 8 frames of 16 x 16, 100 to a
folder, with a text beside every tenth; the page cache is warm. On a busy machine compare processor time.

npy            named .npy: found by their suffix, nothing is read but by the probe
png            folders of 100 images, a video each
dicom          single-frame files named .dcm, 100 to a series; a header is read to group them, and again to probe
mixed          .npy beside as many files of no known suffix, whose first KiB is looked at and which no probe opens
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from benchmarks.rows import DATA, Row, contestants, in_turns, missing
from cinefeed.core.cores import usable_cores

_IN_A_FOLDER = 100
_CODE = """
import sys, time
from cinefeed import Manifest
wall, processor = time.perf_counter(), time.process_time()
Manifest.scan(sys.argv[1], progress=False)
print(time.perf_counter() - wall, time.process_time() - processor)
"""


def npy(path: Path) -> None:
    """Write a `.npy` file."""
    np.save(path.with_suffix(".npy"), np.zeros((8, 16, 16), np.uint8))


def png(path: Path) -> None:
    """Write one frame."""
    import cv2

    cv2.imwrite(str(path.with_suffix(".png")), np.zeros((16, 16), np.uint8))


def dicom(path: Path) -> None:
    """Write one image of a series, a folder each."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID = MRImageStorage
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID = f"1.2.{int(path.name)}"
    image.StudyInstanceUID = image.SeriesInstanceUID = f"1.3.{int(path.parent.name)}"
    image.PatientID, image.Modality, image.InstanceNumber = "P", "MR", int(path.name)
    image.Rows = image.Columns = 16
    image.SamplesPerPixel, image.PhotometricInterpretation, image.PixelRepresentation = 1, "MONOCHROME2", 0
    image.BitsAllocated, image.BitsStored, image.HighBit = 8, 8, 7
    image.ImageOrientationPatient, image.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 0]
    image.PixelData = bytes(256)
    image.save_as(path.with_suffix(".dcm"), enforce_file_format=True)


def mixed(path: Path) -> None:
    """Write a `.npy` file, or a file of no kind."""
    if int(path.name) % 2:
        npy(path)
    else:
        path.write_bytes(bytes(2000))


KINDS = {"npy": npy, "png": png, "dicom": dicom, "mixed": mixed}


def make(folder: Path, kind: str, *, files: int) -> Path:
    """Write the files of one kind."""
    for number in range(files):
        path = folder / kind / f"{number // _IN_A_FOLDER:04}" / f"{number:06}"
        path.parent.mkdir(parents=True, exist_ok=True)
        KINDS[kind](path)
        if number % 10 == 0:
            path.with_suffix(".txt").write_text("beside")
    return folder / kind


def seconds(folder: Path, *, code: Path) -> tuple[float, float]:
    """Return the seconds of one scan by the code in a folder, and those of processor time."""
    done = subprocess.run(
        [sys.executable, "-c", _CODE, str(folder)],
        env={"PYTHONPATH": str(code), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    wall, processor = map(float, done.stdout.split())
    return wall, processor


def scanned(folder: Path, *, verify: Literal["decode", "packets"] = "decode") -> dict[str, int]:
    """Return the number of frames of each file, by a scan, which decodes all frames by default."""
    from cinefeed import Manifest

    manifest = Manifest.scan(folder, verify=verify, progress=False)
    return dict(zip(manifest.column("path").to_pylist(), manifest.column("num_frames").to_pylist(), strict=True))


def loaded(folder: Path) -> dict[str, int]:
    """Return the same, by a loop over `.npy` files that reads their headers with NumPy."""
    paths = sorted(folder.rglob("*.npy"))
    return {path.relative_to(folder).as_posix(): len(np.load(path, mmap_mode="r")) for path in paths}


def indexed(folder: Path) -> dict[str, int]:
    """Return the same, by a loop over videos that opens them with torchcodec, which finds every frame."""
    from torchcodec.decoders import VideoDecoder

    paths = sorted(folder.rglob("*.mp4"))
    return {path.relative_to(folder).as_posix(): VideoDecoder(str(path)).metadata.num_frames for path in paths}


def decoded(folder: Path) -> dict[str, int]:
    """Return the same, by a loop that decodes all frames with torchcodec, and as many threads as a scan has."""
    from torchcodec.decoders import VideoDecoder

    def frames_of(path: Path) -> int:
        return sum(1 for _ in VideoDecoder(str(path), num_ffmpeg_threads=1))

    paths = sorted(folder.rglob("*.mp4"))
    with ThreadPoolExecutor(usable_cores()) as pool:
        counts = list(pool.map(frames_of, paths))
    return {path.relative_to(folder).as_posix(): count for path, count in zip(paths, counts, strict=True)}


def rows(*, quick: bool) -> Iterator[Row | str]:
    """Yield the rows of the benchmarks page: scans beside plain loops that find the numbers of frames alone."""
    runs = 1 if quick else 5
    with tempfile.TemporaryDirectory() as folder:
        place = make(Path(folder), "npy", files=500 if quick else 5000)
        yield row_of("`.npy`", place, scanned, {"a loop, numpy.load": loaded}, runs=runs)
    if not (DATA / "lips").exists():
        yield "`lips` is left out: CINEFEED_DATA has no folder of this name."
        return
    packets = partial(scanned, verify="packets")
    yield row_of("`lips`, MP4, packets", DATA / "lips", packets, {"a loop, torchcodec's index": indexed}, runs=runs)
    peers = {"threads, torchcodec": decoded}
    yield row_of("`lips`, MP4, all frames decoded", DATA / "lips", scanned, peers, runs=runs)


Counts = Callable[[Path], dict[str, int]]


def row_of(name: str, folder: Path, scan: Counts, peers: dict[str, Counts], *, runs: int) -> Row:
    """Return one row: the scan of a folder."""
    expected, problems, ways = scan(folder), {}, {"cinefeed": scan}
    for peer, way in peers.items():
        try:
            counts = {path: count for path, count in way(folder).items() if path in expected}
        except (ImportError, RuntimeError, OSError) as error:
            problems[peer] = missing(error)
            continue
        ways[peer] = way
        if counts != expected:
            problems[peer] = "finds other numbers of frames"

    def files_per_second(way: Counts) -> float:
        began = time.perf_counter()
        return len(way(folder)) / (time.perf_counter() - began)

    values = in_turns({peer: lambda way=way: files_per_second(way) for peer, way in ways.items()}, runs=runs)
    return Row(
        what=f"{name}, {len(expected):,} files",
        unit="files per second",
        check="The number of frames of each file was compared.",
        contestants=contestants(values, problems=problems),
    )


def main() -> None:
    """Print the seconds of a scan of each kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--code", type=Path, help="src folder of another version, measured beside this one")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    args = parser.parse_args()
    here = Path(__file__).parents[1] / "src"
    codes = [here] if args.code is None else [here, args.code.resolve()]
    with tempfile.TemporaryDirectory() as folder:
        for kind in args.kinds:
            place = make(Path(folder), kind, files=args.files)
            times: dict[Path, list[tuple[float, float]]] = {code: [] for code in codes}
            for run in range(args.runs + 1):
                for code in codes:
                    duration = seconds(place, code=code)
                    if run:  # the first fills the page cache and compiles
                        times[code].append(duration)
            for what, number in (("wall", 0), ("processor", 1)):
                each = [[duration[number] for duration in times[code]] for code in codes]
                line = "   ".join(f"{statistics.median(runs):6.2f} s (least {min(runs):.2f})" for runs in each)
                ratio = statistics.median(a / b for a, b in zip(each[0], each[-1], strict=True))
                print(f"{kind:8}{what:12}{line}" + (f"   ratio {ratio:.2f}" if len(codes) > 1 else ""), flush=True)


if __name__ == "__main__":
    main()
