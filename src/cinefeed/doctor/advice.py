"""What is slow or missing on a machine, and what to do about it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cinefeed.errors import listed_in_words

_LITTLE_MEMORY = (
    2_000_000_000  # bytes: a handful of batches of 16 clips of 16 x 224 x 224 in colour, and a decoder each
)


@dataclass(frozen=True, kw_only=True)
class Advice:
    """A finding about the machine, and what to do."""

    finding: str
    action: str


def advise(found: Mapping[str, Any]) -> list[Advice]:
    """Return what is slow or missing on a machine of which `examine` found these facts, the worst first."""
    return [Advice(finding=finding, action=action) for finding, action in _findings(found)]


def _findings(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield from _about_backends(found)
    decoder = found["decoder"]
    if decoder["name"] != "compiled":
        yield (
            f"encoded video is read by PyAV, up to three times slower: {decoder['reason']}",
            "install a version of av whose libavcodec is among the tested ones",
        )
    if found["cache"]["folder"] is None:
        yield (
            "compiled code is not kept, so every process compiles for some seconds",
            "set NUMBA_CACHE_DIR to a folder that can be written",
        )
    yield from _about_cores(found["cores"])
    memory = found["shared_memory"]
    if not memory["processes"]:
        advice = "use Linux for Workers(backend='process')"
        yield "worker processes cannot share memory here; threads make the clips", advice
    if memory["free_bytes"] is not None and memory["free_bytes"] < _LITTLE_MEMORY:
        free = f"{memory['free_bytes'] / 1e9:.1f} GB"
        yield f"{free} of memory are free", "bound the feed's with Feed(workers=Workers(memory='500MB'))"
    missing = {extra: packages for extra, packages in found["formats"].items() if packages}
    if missing:
        names = listed_in_words([package for packages in missing.values() for package in packages])
        yield (
            f"{names} {'is' if len(names.split()) == 1 else 'are'} not installed: {_formats(missing)}",
            f"pip install 'cinefeed[{','.join(missing)}]', if you need them",
        )


def _about_backends(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    keras, backends = found["keras"], found["backends"]
    for name, about in backends.items():
        if "error" in about:
            yield f"{name} is installed and cannot be imported: {about['error']}", f"install {name} again"
    if not keras["installed"] or keras["backend"] is None:
        missing = "Keras is not installed" if not keras["installed"] else "Keras has no backend"
        extra = "torch" if not backends else next(iter(backends))
        yield (
            f"{missing}: train, evaluate and predict need both; a PyTorch or JAX loop of your own needs neither",
            f"pip install 'cinefeed[keras,{extra}]'",
        )
    elif found["versions"].get(keras["backend"]) is None:
        yield (
            f"Keras' backend is {keras['backend']}, which is not installed",
            f"pip install 'cinefeed[{keras['backend']}]', or set KERAS_BACKEND to an installed one",
        )
    gpus = [gpu for about in backends.values() for gpu in about.get("gpus", ())]
    if found["gpu_device"] and backends and not gpus:
        yield (
            f"there is a GPU, which {listed_in_words(list(backends))} cannot use",
            "install a build for it, and a driver that is new enough for that",
        )
    torch = backends.get("torch", {})
    if torch.get("threads", 1) > 1 and not torch["gpus"] and not found["threads"]["passive_waiting"]:
        yield (
            f"torch's {torch['threads']} threads spin while they wait: many times slower beside other programs",
            "set OMP_WAIT_POLICY=PASSIVE in the environment; the command line does so for itself",
        )


def _about_cores(cores: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if cores["used"] == 1:
        yield "there is one core: clips are made and the network is computed in turn", "take a machine with more"
    elif cores["machine"] and cores["used"] < cores["machine"]:
        limit = f"a quota of {cores['quota']:g} cores" if cores["quota"] else "its affinity"
        yield (
            f"of {cores['machine']} cores this process has {cores['used']}, by {limit}",
            "ask for more, if you need them",
        )
    if cores["load"] is not None and cores["load"] > cores["used"]:
        yield (
            f"the machine is busy: {cores['load']:.1f} processes wanted its {cores['machine']} cores, over a minute",
            "wait for the others to end, or expect your share of the time",
        )


def _formats(missing: Mapping[str, Any]) -> str:
    uses = {"dicom": "DICOM", "nifti": "NIfTI", "hdf5": "HDF5"}
    unread = [uses[extra] for extra in missing if extra in uses]
    parts = [f"{listed_in_words(unread)} cannot be read"] if unread else []
    return ", and ".join([*parts, *(["no report is written"] if "report" in missing else [])])
