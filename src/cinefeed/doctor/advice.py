"""Advice about slow or missing parts of a machine."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cinefeed.core.errors import listed_in_words

_LOW_MEMORY = 2_000_000_000  # bytes: some batches of 16 clips of 16 x 224 x 224 in colour, and a decoder per clip


@dataclass(frozen=True, kw_only=True)
class Advice:
    """A finding about the machine, and the recommended action."""

    finding: str
    action: str


def advise(machine: Mapping[str, Any]) -> list[Advice]:
    """Return advice about what is slow or missing, from the result of `examine`; the most important comes first."""
    return [Advice(finding=finding, action=action) for finding, action in _findings(machine)]


def _findings(machine: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield from _about_backends(machine)
    decoder = machine["decoder"]
    if decoder["name"] != "compiled":
        yield (
            f"encoded video is read by PyAV, up to three times slower: {decoder['reason']}",
            "install a version of av with a tested libavcodec",
        )
    if machine["cache"]["folder"] is None:
        yield (
            "compiled code is not cached, so every process compiles for some seconds",
            "set NUMBA_CACHE_DIR to a writable folder",
        )
    yield from _about_cores(machine["cores"])
    memory = machine["shared_memory"]
    if not memory["processes"]:
        yield (
            "worker processes cannot share memory here, so threads are used",
            "use Linux for Workers(backend='process')",
        )
    if memory["free_bytes"] is not None and memory["free_bytes"] < _LOW_MEMORY:
        free = f"{memory['free_bytes'] / 1e9:.1f} GB"
        yield f"{free} of memory are free", "limit the memory of the feed with Feed(workers=Workers(memory='500MB'))"
    missing = {extra: packages for extra, packages in machine["formats"].items() if packages}
    if missing:
        names = listed_in_words([package for packages in missing.values() for package in packages])
        yield (
            f"{names} {'is' if len(names.split()) == 1 else 'are'} not installed: {_formats(missing)}",
            f"pip install 'cinefeed[{','.join(missing)}]', if you need them",
        )


def _about_backends(machine: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    keras, backends = machine["keras"], machine["backends"]
    for name, about in backends.items():
        if "error" in about:
            yield f"{name} is installed but cannot be imported: {about['error']}", f"install {name} again"
    if not keras["installed"] or keras["backend"] is None:
        missing = "Keras is not installed" if not keras["installed"] else "Keras has no backend"
        extra = "torch" if not backends else next(iter(backends))
        yield (
            f"{missing}: train, evaluate and predict need Keras and a backend; your own training loop in PyTorch or "
            "JAX does not need Keras",
            f"pip install 'cinefeed[keras,{extra}]'",
        )
    elif machine["versions"].get(keras["backend"]) is None:
        yield (
            f"the Keras backend is {keras['backend']}, which is not installed",
            f"pip install 'cinefeed[{keras['backend']}]', or set KERAS_BACKEND to an installed one",
        )
    gpus = [gpu for about in backends.values() for gpu in about.get("gpus", ())]
    if machine["gpu_device"] and backends and not gpus:
        yield (
            f"there is a GPU that {listed_in_words(list(backends))} cannot use",
            "install a build for it, and a driver that supports this build",
        )
    torch = backends.get("torch", {})
    if torch.get("threads", 1) > 1 and not torch["gpus"] and not machine["threads"]["passive_waiting"]:
        yield (
            f"torch's {torch['threads']} threads spin while they wait: many times slower if other programs run",
            "set OMP_WAIT_POLICY=PASSIVE in the environment; the commands of cinefeed do it themselves",
        )


def _about_cores(cores: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if cores["used"] == 1:
        yield "there is one core, so decoding and training cannot run in parallel", "use a machine with more cores"
    elif cores["machine"] and cores["used"] < cores["machine"]:
        limit = f"a quota of {cores['quota']:g} cores" if cores["quota"] else "its affinity"
        yield (
            f"this process can use {cores['used']} of {cores['machine']} cores, limited by {limit}",
            "request more if you need them",
        )
    if cores["load"] is not None and cores["load"] > cores["used"]:
        yield (
            f"the machine is busy: a load of {cores['load']:.1f} processes on {cores['machine']} cores (one minute)",
            "wait until other programs end, or expect longer times",
        )


def _formats(missing: Mapping[str, Any]) -> str:
    uses = {"dicom": "DICOM", "nifti": "NIfTI", "hdf5": "HDF5"}
    unread = [uses[extra] for extra in missing if extra in uses]
    parts = [f"{listed_in_words(unread)} cannot be read"] if unread else []
    return ", and ".join([*parts, *(["no report is written"] if "report" in missing else [])])
