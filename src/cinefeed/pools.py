"""Thread pools of the libraries beside this one: they wait without spinning, and workers have one thread each.

OpenMP's threads, which torch, scikit-learn and some builds of NumPy compute with, spin while they wait for each other.
On a machine that others use too, the thread that they wait for has no core, and the spinning takes its time: a step of
the demo's network took 1,623 ms beside two busy loops on two cores, and 121 ms with passive waiting (70 ms alone).
OpenMP reads its settings from the environment when it is loaded, so they are set before torch is imported, or never.
"""

import logging
import os
import sys

_log = logging.getLogger(__name__)
# GNU OpenMP (torch on Linux) and LLVM (torch on macOS) read the first, Intel and LLVM the second; OpenBLAS, with which
# NumPy calculates, spins for 2 to the power of the third processor cycles, 26 by default.
PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0", "OPENBLAS_THREAD_TIMEOUT": "4"}
# For a worker process, which makes one clip at a time: with a pool each, 64 workers on 64 cores have 4,096 threads.
ONE_THREAD = dict.fromkeys(
    "OMP_NUM_THREADS OPENBLAS_NUM_THREADS MKL_NUM_THREADS VECLIB_MAXIMUM_THREADS NUMBA_NUM_THREADS".split(), "1"
)
_too_late = False  # whether torch had been loaded before `wait_passively` set the environment
_reported = False


def wait_passively() -> None:
    """Set passive waiting in the environment of this process, for OpenMP libraries that are loaded from now on.

    What the user has set stays. The command line and `cinefeed.adapters` call it before torch is imported.
    """
    global _too_late
    _too_late = _too_late or ("torch" in sys.modules and not is_passive())
    for name, value in PASSIVE.items():
        os.environ.setdefault(name, value)


def is_passive() -> bool:
    """Return whether torch's threads wait without spinning, or will once it is loaded."""
    return os.environ.get("OMP_WAIT_POLICY", "").strip().upper() == "PASSIVE" and not _too_late


def report_spinning() -> None:
    """Log one line, once a process, if torch computes on several threads of the CPU that spin while they wait."""
    global _reported
    torch = sys.modules.get("torch")
    if _reported or torch is None or is_passive() or not hasattr(torch, "get_num_threads"):
        return
    if torch.get_num_threads() < 2 or torch.cuda.is_available():
        return
    _reported = True
    _log.warning(
        "torch was imported before passive waiting was set: its %d threads spin while they wait, which makes a step "
        "many times slower beside other programs; set OMP_WAIT_POLICY=PASSIVE in the environment before Python starts, "
        "or import cinefeed.adapters before torch",
        torch.get_num_threads(),
    )


def openmp_threads_setting() -> int | None:
    """Return the number of threads that the user asked OpenMP for, OMP_NUM_THREADS; None if there is no number.

    >>> import os
    >>> os.environ["OMP_NUM_THREADS"] = "2,1"  # of nested regions, the outermost first
    >>> openmp_threads_setting()
    2
    """
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isdigit() and int(first) else None
