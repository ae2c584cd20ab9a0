"""What is said of a folder whose files need packages that are not installed."""

import pytest

from cinefeed.core.errors import MissingExtraError
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.video import extras
from cinefeed.video import registry as opening


def hide(monkeypatch, *packages):
    find_spec = extras.find_spec
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name in packages else find_spec(name))


@pytest.fixture
def folder(tmp_path):
    """Files of four formats, of which only the DICOM file is told by its content."""
    (tmp_path / "a.npy").write_bytes(b"not looked into")
    (tmp_path / "b.h5").write_bytes(b"not looked into")
    (tmp_path / "c.nii.gz").write_bytes(b"not looked into")
    (tmp_path / "IM0001").write_bytes(bytes(128) + b"DICM" + b"\2\0\0\0")
    return tmp_path


def test_all_missing_packages_of_a_folder_are_named_before_a_file_is_opened(folder, monkeypatch):
    hide(monkeypatch, "pydicom", "h5py", "nibabel")
    monkeypatch.setattr(opening, "group_series", None)  # which opens files
    with pytest.raises(MissingExtraError) as raised:
        Manifest.scan(folder)
    text = str(raised.value)
    assert text.startswith("pydicom, h5py and nibabel are not installed; run: pip install 'cinefeed[dicom,hdf5,nifti]'")
    assert text.endswith(f"to read {folder}: it holds 1 DICOM, 1 HDF5 and 1 NIfTI files")


def test_only_missing_packages_are_named(folder, monkeypatch):
    hide(monkeypatch, "nibabel")
    with pytest.raises(MissingExtraError, match=r"^nibabel is not installed.*\[nifti\].*holds 1 NIfTI file$"):
        Manifest.scan(folder)


def test_files_of_other_kinds_need_no_package(monkeypatch):
    hide(monkeypatch, "pydicom", "h5py", "nibabel")
    extras.check_extras({"npy": 3, "encoded": 2, "dicom": 0}, place="a folder")
