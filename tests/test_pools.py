"""Passive waiting: what is set, when it is too late, and what is said then."""

import logging
import sys
from types import SimpleNamespace

import pytest

from cinefeed.core import pools


@pytest.fixture
def environment(monkeypatch):
    """No setting of OpenMP in the environment, no torch, nothing reported yet."""
    for name in (*pools.PASSIVE, "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(pools, "_is_too_late", False)
    monkeypatch.setattr(pools, "_is_reported", False)
    return monkeypatch


def load_torch(environment, *, threads=2, gpu=False):
    environment.setitem(
        sys.modules,
        "torch",
        SimpleNamespace(get_num_threads=lambda: threads, cuda=SimpleNamespace(is_available=lambda: gpu)),
    )


def test_waiting_is_passive_where_it_is_set_before_torch_is_loaded(environment, caplog):
    assert not pools.is_passive()
    pools.wait_passively()
    load_torch(environment)
    pools.wait_passively()
    assert pools.is_passive()
    pools.report_spinning()
    assert not caplog.records


def test_it_is_too_late_once_torch_is_loaded_and_one_line_says_so(environment, caplog):
    load_torch(environment)
    pools.wait_passively()
    assert not pools.is_passive()
    with caplog.at_level(logging.WARNING):
        pools.report_spinning()
        pools.report_spinning()
    (record,) = caplog.records
    assert "OMP_WAIT_POLICY=PASSIVE" in record.message and "2 threads" in record.message


@pytest.mark.parametrize("torch", [{"threads": 1}, {"gpu": True}, None])
def test_nothing_is_said_where_nothing_spins(environment, caplog, torch):
    if torch is not None:
        load_torch(environment, **torch)
    pools.report_spinning()
    assert not caplog.records


def test_what_the_user_has_set_stays(environment):
    environment.setenv("OMP_WAIT_POLICY", "ACTIVE")
    pools.wait_passively()
    assert not pools.is_passive()


@pytest.mark.parametrize(("text", "number"), [("4", 4), ("3,2", 3), ("", None), ("0", None), ("many", None)])
def test_the_number_of_threads_in_the_environment(environment, text, number):
    environment.setenv("OMP_NUM_THREADS", text)
    assert pools.openmp_threads_setting() == number
