"""Medical cine in shards: no identity in any byte, and window, spacing, times and 16 bits as in the source."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

import cinefeed as cf
from cinefeed.core.errors import SettingError
from cinefeed.packing.pack import pack
from cinefeed.packing.settings import PackSettings

pytest.importorskip("pydicom")
_path = Path(__file__).parents[1] / "video" / "made_dicom.py"
_spec = importlib.util.spec_from_file_location("made_dicom", _path)
made_dicom = sys.modules.setdefault("made_dicom", importlib.util.module_from_spec(_spec))
if not hasattr(made_dicom, "write_dicom"):
    _spec.loader.exec_module(made_dicom)

SECRETS = (b"SMITH", b"MRN0", b"1.2.99", b"19700101", b"General Hospital")


def frames_of(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 4000, (6, 40, 32), np.uint16)


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    """Cine of 12 bits in folders named after patients, with a window, spacing and frame times; NIfTI and HDF5 too."""
    for number in range(3):
        made_dicom.write_dicom(
            tmp_path / f"studies/SMITH_{number}/cine.dcm",
            frames_of(number),
            BitsStored=12,
            HighBit=11,
            PatientID=f"MRN0{number}",
            PatientName=f"SMITH^{number}",
            PatientBirthDate="19700101",
            InstitutionName="General Hospital",
            StudyInstanceUID=f"1.2.99.{number}",
            SeriesInstanceUID=f"1.2.99.{number}.1",
            WindowCenter=1000,
            WindowWidth=800,
            PixelSpacing=[1.5, 1.25],
            FrameTime=40,
        )
    h5py = pytest.importorskip("h5py")
    (tmp_path / "studies/SMITH_4").mkdir()
    with h5py.File(tmp_path / "studies/SMITH_4/cine.h5", "w") as file:
        file["cine"] = frames_of(4)
        file["cine"].attrs["patient"] = "SMITH^4"
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.Nifti1Image(frames_of(5).astype(np.int16).transpose(2, 1, 0)[:, :, None], np.eye(4))
    image.header["descrip"] = b"SMITH MRN05"
    nibabel.save(image, tmp_path / "studies/SMITH_4/volume.nii")
    return tmp_path


def scan(studies: Path, **options) -> cf.Manifest:
    return cf.Manifest.scan(studies / "studies", out=studies / "m.parquet", progress=False, **options)


def run(manifest: cf.Manifest, out: Path, **settings) -> cf.Manifest:
    pack(manifest, out=out, settings=PackSettings(**settings), workers=0, progress=False)
    return cf.Manifest.read(out)


@pytest.mark.parametrize("codec", ["raw", "ffv1"])
@pytest.mark.parametrize("short_side", [None, 24])
def test_no_identity_is_in_any_byte(studies, codec, short_side):
    source = scan(studies, private=True)
    rows = [row for row in range(len(source)) if codec == "raw" or source.metadata(row).bits <= 16]
    shards = run(source.take(rows), studies / "packed", codec=codec, short_side=short_side)
    names = [path for path in (studies / "packed").rglob("*") if path.is_file()]
    assert len(names) == 4
    for path in names:
        leaks = [secret for secret in SECRETS if secret in path.read_bytes()]
        assert not leaks, (path, leaks)
    assert shards.column("id").equals(source.take(rows).column("id")) and shards.private
    assert shards.salt_fingerprint("patient") == source.salt_fingerprint("patient")


@pytest.mark.parametrize("codec", ["raw", "ffv1"])
def test_numbers_window_spacing_and_times_stay(studies, codec):
    source = scan(studies, private=True).where("container", ["dicom"])
    shards = run(source, studies / "packed", codec=codec)
    small = run(source, studies / "small", codec=codec, short_side=16)
    for row in range(3):
        before, after, resized = (each.metadata(row) for each in (source, shards, small))
        assert after.window == before.window == resized.window == (600.0, 1399.0)
        assert (after.bits, after.spacing_mm) == (12, (1.5, 1.25)) and resized.spacing_mm == (3.0, 2.5)
        assert np.array_equal(after.times.seconds(), before.times.seconds()) and after.times.step_seconds == 0.04
        with source.open(row) as one, shards.open(row) as other:
            assert np.array_equal(one.planes([0, 5]).frames[1][0], other.planes([0, 5]).frames[1][0])
            assert other.planes([0]).colour == one.planes([0]).colour
        for frame in (cf.Frame(height=20, width=20, channels=1), cf.Frame(height=9, width=9, window=(0, 4000))):
            options = {"target": None, "clip": cf.Clip(frames=4, rate_hz=25), "frame": frame, "workers": 0}
            batches = [cf.Feed(each, **options).batch(0).clips for each in (source, shards)]
            assert np.array_equal(*batches)


def test_ids_that_are_paths_are_refused_unless_hashed_or_wanted(studies):
    source = scan(studies)
    with pytest.raises(SettingError, match=r"ids of 5 rows are paths .*--private"):
        run(source, studies / "packed", codec="raw")
    shards = run(source.as_private(), studies / "packed", codec="raw")
    assert not any(b"SMITH" in path.read_bytes() for path in (studies / "packed").rglob("*") if path.is_file())
    assert len(shards) == 5
    with_paths = run(source, studies / "kept", codec="raw", keep_ids=True)
    assert with_paths.column("id").equals(source.column("id"))


def test_identities_in_the_pixels_are_refused(studies):
    made_dicom.write_dicom(studies / "studies/b/cine.dcm", frames_of(9), BurnedInAnnotation="YES", PatientID="MRN09")
    source = scan(studies, private=True)
    with pytest.raises(SettingError, match=r"1 DICOM file .*BurnedInAnnotation"):
        run(source, studies / "packed", codec="raw")
    assert len(run(source, studies / "packed", codec="raw", allow_burned_in=True)) == 6


def test_eight_bits_need_a_window(studies):
    source = scan(studies, private=True)
    with pytest.raises(SettingError, match=r"row .*window"):
        run(source, studies / "packed", codec="jpeg")
    shards = run(source, studies / "packed2", codec="jpeg", window=(0, 4000))
    with shards.open(0) as other:
        assert other.read([0]).dtype == np.uint8 and other.read([0]).mean() > 90


def test_copies_of_dicom_are_refused(studies):
    with pytest.raises(SettingError, match="raw or ffv1"):
        run(scan(studies, private=True), studies / "packed", codec="copy")
