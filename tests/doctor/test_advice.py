"""What the doctor says of made-up machines, and that it sees this one."""

import copy
import json

import pytest

from cinefeed.cli import main
from cinefeed.doctor import advise, examine, look

HEALTHY = {
    "versions": {"python": "3.13", "platform": "Linux", "cinefeed": "0.1.0", "torch": "2.13.0", "jax": None},
    "decoder": {"name": "compiled", "reason": "libavcodec 62.28.102 has the expected layout"},
    "plugins": {"packages": {"some-plugin": "1.2"}, "names": {"samplers": ["Third"], "models": []}},
    "formats": {"dicom": [], "hdf5": [], "nifti": [], "report": []},
    "cores": {"machine": 8, "allowed": 8, "quota": None, "used": 8, "load": 0.4},
    "shared_memory": {"processes": True, "free_bytes": 16_000_000_000},
    "cache": {"folder": "somewhere"},
    "keras": {"installed": True, "backend": "torch"},
    "gpu_device": False,
    "backends": {"torch": {"threads": 8, "built_for_cuda": None, "gpus": [], "pools": []}},
    "threads": {"opencv": 8, "numba": 8, "pyarrow": 8, "passive_waiting": True},
}


def machine(**changes):
    """Return the description of a machine without faults but for some changes, each by the path of its name."""
    description = copy.deepcopy(HEALTHY)
    for path, value in changes.items():
        *outer, last = path.split("__")
        table = description
        for name in outer:
            table = table[name]
        table[last] = value
    return description


def test_a_healthy_machine_needs_no_advice():
    assert advise(HEALTHY) == []


@pytest.mark.parametrize(
    ("changes", "finding", "action"),
    [
        (
            {"decoder": {"name": "PyAV", "reason": "this is 99"}},
            "up to three times slower: this is 99",
            "version of av",
        ),
        ({"cache__folder": None}, "every process compiles", "NUMBA_CACHE_DIR"),
        ({"shared_memory__processes": False}, "so threads are used", "Linux"),
        ({"shared_memory__free_bytes": 900_000_000}, "0.9 GB of memory", "Feed(workers=Workers(memory='500MB'))"),
        (
            {"formats__hdf5": ["h5py"], "formats__report": ["jinja2"]},
            "h5py and jinja2 are not installed: HDF5 cannot be read, and no report is written",
            "pip install 'cinefeed[hdf5,report]'",
        ),
        ({"formats__nifti": ["nibabel"]}, "nibabel is not installed: NIfTI cannot", "'cinefeed[nifti]'"),
        ({"keras__installed": False}, "Keras is not installed", "pip install 'cinefeed[keras,torch]'"),
        ({"keras__backend": None, "backends": {}}, "Keras has no backend", "pip install 'cinefeed[keras,torch]'"),
        ({"keras__backend": "jax"}, "jax, which is not installed", "KERAS_BACKEND"),
        ({"backends__torch": {"error": "no libcudart"}}, "cannot be imported: no libcudart", "install torch again"),
        ({"gpu_device": True}, "a GPU that torch cannot use", "a driver"),
        ({"threads__passive_waiting": False}, "torch's 8 threads spin", "OMP_WAIT_POLICY=PASSIVE"),
        ({"cores__used": 1}, "one core", "a machine with more"),
        ({"cores__used": 2, "cores__quota": 1.5}, "can use 2 of 8 cores, limited by a quota of 1.5 cores", "request"),
        ({"cores__used": 4}, "can use 4 of 8 cores, limited by its affinity", "request"),
        ({"cores__load": 11.2}, "a load of 11.2 processes on 8 cores", "longer times"),
    ],
)
def test_each_fault_alone_gives_one_advice(changes, finding, action):
    (advice,) = advise(machine(**changes))
    assert finding in advice.finding and action in advice.action


def test_a_gpu_that_is_used_needs_no_passive_waiting():
    used = {"threads": 8, "built_for_cuda": "12.8", "gpus": ["H200"], "pools": []}
    assert advise(machine(gpu_device=True, backends__torch=used, threads__passive_waiting=False)) == []


def test_this_machine_is_seen():
    description = examine(frameworks=())
    assert description["cores"]["used"] >= 1 and description["versions"]["numpy"] and description["backends"] == {}
    assert description["decoder"]["name"] in ("compiled", "PyAV")
    json.dumps(description)


def test_the_process_that_looks_at_a_framework_sees_pools_and_errors(tmp_path, monkeypatch):
    assert look._framework("torch")["threads"] >= 1
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so.12 is not there')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert look._framework("torch") == {"error": "ImportError: libcudart.so.12 is not there"}


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_the_command_prints_facts_and_advice(options, monkeypatch, capsys):
    monkeypatch.setattr("cinefeed.cli.doctor.examine", lambda: machine(cache__folder=None))
    assert main(["doctor", *options]) == 0
    text = capsys.readouterr().out
    if options:
        assert json.loads(text)["advice"][0]["action"].startswith("set NUMBA_CACHE_DIR")
    else:
        assert "decoder        compiled: libavcodec 62.28.102" in text and "\n  -> set NUMBA_CACHE_DIR" in text
