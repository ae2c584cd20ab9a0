"""What an installed cinefeed must do, with the extras that are named: `python from_wheel.py keras jax`.

It is run by `make versions`, in an environment that has the wheel and nothing else: no pytest, no source tree. Scan,
check and feed are always tried; each extra adds what it is for. The last line is JSON: which versions there are, which
decoder ran, and the digest of what was fed.
"""

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np

import cinefeed as cf
from cinefeed.testing import numbered_frames, read_number, write_video
from cinefeed.video.ffmpeg.decoder import decoder_choice

CLIPS, COUNT = 24, 16
CORE = "numpy av opencv-python-headless numba llvmlite pyarrow scikit-learn typer rich tomli-w".split()
LOADED = {"keras": ["keras"], "jax": ["jax", "jaxlib"], "torch": ["torch"]}
FIRST = np.arange(CLIPS * COUNT, dtype=np.uint8).reshape(CLIPS, COUNT)[:1, :, None, None]


def must(holds: bool, what: str) -> None:
    """Raise an error that says what does not hold."""
    if not holds:
        raise SystemExit(f"from_wheel.py: {what}")


def run(*arguments: str, folder: Path, fails: bool = False) -> str:
    """Run a command of cinefeed as a user does, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-I", "-m", "cinefeed", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    must((done.returncode != 0) == fails, f"cinefeed {' '.join(arguments)}: {done.returncode}\n{done.stderr[-3000:]}")
    return done.stdout + (done.stderr if fails else "")


def scan_and_check(folder: Path) -> None:
    """Write dark and bright videos and their labels; scan and check them by the command line."""
    (folder / "videos").mkdir()
    lines = ["path,patient,label"]
    for number in range(CLIPS):
        frames = numbered_frames(COUNT, height=32, width=32, first=1000 * number)
        bright = number % 2
        write_video(folder / "videos" / f"{number:02}.mp4", frames // 2 + 120 * bright, b_frames=2)
        lines.append(f"{number:02}.mp4,p{number},{'bright' if bright else 'dark'}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    run("scan", "videos", "--labels", "labels.csv", "--out", "manifest.parquet", folder=folder)
    checked = json.loads(run("check", "manifest.parquet", "--target", "label", "--json", folder=folder))
    must(not [each for each in checked["findings"] if each["severity"] == "error"], f"check finds {checked}")


def feed_of(folder: Path, **settings: Any) -> cf.Feed:
    """Return a feed of the videos, exact to the frame and without any augmentation."""
    manifest = cf.Manifest.read(folder / "manifest.parquet")
    frame = cf.Frame(height=32, width=32, channels=1)
    return cf.Feed(manifest, target="label", clip=cf.Clip(frames=8), frame=frame, batch_size=8, seed=1, **settings)


def feed(folder: Path) -> dict[str, Any]:
    """Feed an epoch on threads and on processes: the same bytes, the frames that were asked for, one decoder."""
    digests, stats = [], None
    for backend in ("thread", "process"):
        made = feed_of(folder, workers=cf.Workers(count=2, backend=backend))
        batches = list(made)
        digests.append(hashlib.sha256(b"".join(batch.clips.tobytes() for batch in batches)).hexdigest()[:16])
        stats = made.stats()
        made.close()
        must(stats.compiled + stats.pyav == CLIPS, f"{stats.compiled} + {stats.pyav} videos were read of {CLIPS}")
    must(digests[0] == digests[1], f"threads and processes fed {digests}")
    with cf.open_video(folder / "videos" / "00.mp4") as source:
        must([read_number(frame * 2) for frame in source.read([11, 2])] == [11, 2], "frames 11 and 2 are others")
    return {"digest": digests[0], "compiled": stats.compiled, "pyav": stats.pyav, "decoder": stats.decoder}


def doctor(folder: Path, *, extras: Collection[str]) -> None:
    """Look at this environment by the command line: the decoder that ran, and the extras that are here."""
    result = json.loads(run("doctor", "--json", folder=folder))
    must(result["decoder"]["name"] == decoder_choice().name, f"the doctor finds {result['decoder']}")
    missing = [extra for extra, packages in result["formats"].items() if packages and extra in extras]
    must(not missing, f"the doctor misses {missing}")
    broken = {name: about["error"] for name, about in result["backends"].items() if "error" in about}
    must(not broken, f"the doctor cannot import {broken}")


def train(folder: Path) -> str:
    """Train a network, and predict with it."""
    settings = "--target label --no-group --frame 32x32x1 --frames 4 --epochs 2 --batch-size 4 --out run".split()
    run("train", "manifest.parquet", *settings, folder=folder)
    run("predict", "run", "videos", "--out", "scores.csv", folder=folder)
    must(len((folder / "scores.csv").read_text().splitlines()) == CLIPS + 1, "predict wrote other rows")
    return json.loads((folder / "run" / "run.json").read_text()).get("backend", os.environ["KERAS_BACKEND"])


def keras_alone(folder: Path) -> None:
    """Keras without a backend: the error says what to install."""
    output = run(
        "train", "manifest.parquet", "--target", "label", "--no-group", "--out", "none", folder=folder, fails=True
    )
    must("pip install" in output, f"no hint of a backend: {output}")


def dicom(folder: Path) -> None:
    import pydicom
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, RLELossless, UltrasoundMultiFrameImageStorage, generate_uid

    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = UltrasoundMultiFrameImageStorage
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = generate_uid()
    ds.Rows, ds.Columns, ds.NumberOfFrames, ds.SamplesPerPixel = 8, 8, COUNT, 1
    ds.PhotometricInterpretation, ds.PixelRepresentation = "MONOCHROME2", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
    ds.PixelData = np.broadcast_to(FIRST[0], (COUNT, 8, 8)).tobytes()
    ds.save_as(folder / "raw.dcm", enforce_file_format=True)
    ds.compress(RLELossless)
    ds.save_as(folder / "rle.dcm", enforce_file_format=True)
    for name in ("raw.dcm", "rle.dcm"):
        opens(folder / name)
    must(bool(pydicom.dcmread(folder / "rle.dcm").NumberOfFrames), "pydicom reads its own")


def nifti(folder: Path) -> None:
    import nibabel

    values = np.broadcast_to(FIRST[0][..., None].T, (8, 8, 1, COUNT)).copy()
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), folder / "cine.nii.gz")
    opens(folder / "cine.nii.gz")


def hdf5(folder: Path) -> None:
    import h5py

    with h5py.File(folder / "cine.h5", "w") as file:
        file["frames"] = np.broadcast_to(FIRST[0], (COUNT, 8, 8))
    opens(folder / "cine.h5", part="/frames")


def opens(path: Path, **settings: Any) -> None:
    """Read two frames of a file in which each pixel is the number of its frame."""
    with cf.open_video(path, **settings) as source:
        frames = source.read([9, 3])
        must((len(source), frames[:, 0, 0, 0].tolist()) == (COUNT, [9, 3]), f"{path.name} holds other frames")


def report(folder: Path) -> None:
    run("check", "manifest.parquet", "--target", "label", "--page", "check.html", folder=folder)
    must("<html" in (folder / "check.html").read_text(), "no page")


def tensorboard(folder: Path) -> None:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(folder / "events"))
    writer.add_event(Event(step=1))
    writer.close()
    must(len(list((folder / "events").iterdir())) == 1, "no file of events")


def jax(folder: Path) -> None:
    from cinefeed.adapters.jax import FeedIterator

    shapes = [inputs["clips"].shape for inputs, _, _ in FeedIterator(feed_of(folder))]
    must(shapes == [(8, 8, 32, 32, 1)] * 3, f"JAX is fed {shapes}")


def torch(folder: Path) -> None:
    from cinefeed.adapters.torch import FeedLoader

    shapes = [tuple(inputs["clips"].shape) for inputs, _, _ in FeedLoader(feed_of(folder))]
    must(len(shapes) == 3, f"torch is fed {shapes}")


def onnx(folder: Path) -> None:
    import onnx  # noqa: F401
    import onnxruntime
    import onnxscript  # noqa: F401

    must(bool(onnxruntime.get_available_providers()), "ONNX Runtime runs nowhere")
    if (folder / "run").exists() and os.environ["KERAS_BACKEND"] == "torch":
        run("export", "run", folder=folder)
        must((folder / "run" / "model.onnx").exists(), "no ONNX file")


EXTRAS: dict[str, Callable[[Path], None]] = {
    "dicom": dicom,
    "nifti": nifti,
    "hdf5": hdf5,
    "report": report,
    "tensorboard": tensorboard,
    "jax": jax,
    "torch": torch,
    "onnx": onnx,
}


def main(extras: Collection[str]) -> dict[str, Any]:
    """Try all that is asked for; return what was found."""
    backends = [name for name in ("torch", "jax") if name in extras]
    os.environ["KERAS_BACKEND"] = (backends or ["torch"])[0]
    place = Path(cf.__file__)
    must(place.is_relative_to(sys.prefix), f"cinefeed is that of {place}, not of the wheel in {sys.prefix}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scan_and_check(folder)
        result = feed(folder)
        doctor(folder, extras=extras)
        if "keras" in extras:
            result["trained"] = train(folder) if backends else keras_alone(folder)
        for extra in extras:
            if extra in EXTRAS:
                EXTRAS[extra](folder)
    names = [*CORE, *(each for extra in extras for each in LOADED.get(extra, []))]
    versions = {each: importlib.metadata.version(each) for each in names}
    return {"python": platform.python_version(), **result, "ffmpeg": decoder_choice().versions, "versions": versions}


if __name__ == "__main__":
    warnings.filterwarnings("error", category=DeprecationWarning, module=r"cinefeed\.")  # its own use of others
    print(json.dumps(main(sys.argv[1:])))
