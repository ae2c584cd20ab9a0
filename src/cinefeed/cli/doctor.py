"""The command `cinefeed doctor`, which shows the properties of this machine and gives advice."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from cinefeed.cli.options import Json
from cinefeed.cli.show import emit
from cinefeed.doctor import advise, examine


def doctor(as_json: Json = False) -> None:
    """Show versions, decoder, cores, memory, backends and threads, and advice about slow or missing parts."""
    machine = examine()
    advice = advise(machine)
    lines = [f"{name:<15}{text}" for name, text in _lines(machine).items()]
    for item in advice:
        lines += ["", item.finding, f"  -> {item.action}"]
    if not advice:
        lines += ["", "nothing is slow or missing on this machine"]
    emit({**machine, "advice": [asdict(each) for each in advice]}, as_json=as_json, text="\n".join(lines))


def _lines(machine: Mapping[str, Any]) -> dict[str, str]:
    cores, memory, threads = machine["cores"], machine["shared_memory"], machine["threads"]
    versions = {name: text for name, text in machine["versions"].items() if text is not None}
    platform = versions.pop("platform")
    quota = "no quota" if cores["quota"] is None else f"a quota of {cores['quota']:g}"
    load = "" if cores["load"] is None else f"; load {cores['load']:.1f}"
    free = "" if memory["free_bytes"] is None else f", {memory['free_bytes'] / 1e9:.1f} GB free"
    waiting = "passive" if threads["passive_waiting"] else "spinning"
    pools = [f"OpenCV {threads['opencv']}", f"numba {threads['numba']}", f"pyarrow {threads['pyarrow']}"]
    return {
        "versions": ", ".join(f"{name} {text}" for name, text in versions.items()),
        "platform": platform,
        "decoder": f"{machine['decoder']['name']}: {machine['decoder']['reason']}",
        "cores": f"{cores['used']} of {cores['machine']} used, {cores['allowed']} allowed, {quota}{load}",
        "memory": f"{'shared with worker processes' if memory['processes'] else 'not shared'}{free}",
        "compiled code": machine["cache"]["folder"] or "not cached",
        "Keras": f"on {machine['keras']['backend']}" if machine["keras"]["installed"] else "not installed",
        **{name: _backend(about) for name, about in machine["backends"].items()},
        **_plugins(machine["plugins"]),
        "threads": f"{', '.join(pools)}; OpenMP: {waiting}",
    }


def _plugins(about: Mapping[str, Any]) -> dict[str, str]:
    """Return a line with the packages and the names of plug-ins; none without plug-ins."""
    packages = [f"{name} {version}" for name, version in about["packages"].items()]
    kinds = [f"{kind}: {', '.join(names)}" for kind, names in about["names"].items() if names]
    return {"plug-ins": f"{', '.join(packages)} ({'; '.join(kinds)})"} if packages else {}


def _backend(about: Mapping[str, Any]) -> str:
    if "error" in about:
        return str(about["error"])
    pools = [f"{pool['library']} {pool['threads']}" for pool in about["pools"]]
    return f"{', '.join(about['gpus']) or 'no GPU'}; threads: {', '.join(pools) or 'no pool'}"
