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
from pathlib import Path

import numpy as np

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
