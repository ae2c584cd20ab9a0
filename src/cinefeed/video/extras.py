"""Optional packages that each kind of file needs."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import NamedTuple

from cinefeed.core.errors import MissingExtraError, listed_in_words


class Extra(NamedTuple):
    """An extra of the package that reads a kind of file: its name, its packages, and the name of the format."""

    name: str
    packages: tuple[str, ...]
    format: str


EXTRAS = {
    "dicom": Extra("dicom", ("pydicom",), "DICOM"),  # imagecodecs and others decode compressed pixels
    "hdf5": Extra("hdf5", ("h5py",), "HDF5"),
    "nifti": Extra("nifti", ("nibabel",), "NIfTI"),
}


def check_extras(counts: Mapping[str, int], *, place: str) -> None:
    """Raise MissingExtraError, with all missing packages, unless every kind of file can be read.

    `counts` has the number of files by kind (see `cinefeed.video.kinds`), `place` is the folder of the files.
    """
    missing = {kind: extra for kind, extra in sorted(EXTRAS.items()) if counts.get(kind) and missing_packages(extra)}
    if missing:
        raise MissingExtraError(
            *(package for extra in missing.values() for package in missing_packages(extra)),
            extra=",".join(extra.name for extra in missing.values()),
            hint=f" to read {place}: it holds "
            + listed_in_words([f"{counts[kind]} {extra.format}" for kind, extra in missing.items()])
            + f" {'file' if sum(counts[kind] for kind in missing) == 1 else 'files'}",
        )


def missing_packages(extra: Extra) -> list[str]:
    """Return the packages of an extra that cannot be imported."""
    return [name for name in extra.packages if find_spec(name) is None]
