"""Settings of thread pools of other libraries: passive waiting, and one thread per worker process.

The OpenMP threads of torch, scikit-learn and some builds of NumPy spin while they wait for each other. On a shared
machine, the spinning threads take the core that the awaited thread needs: a step of the demo's network took 1,623 ms
beside two busy loops on two cores, and 121 ms with passive waiting (70 ms alone). OpenMP reads its settings from the
environment when it is loaded, so they must be set before torch is imported.
"""

import logging
import os
import sys

_log = logging.getLogger(__name__)
# GNU OpenMP (torch on Linux) and LLVM (torch on macOS) read the first, Intel and LLVM the second. The third is for
# OpenBLAS (NumPy), which spins for 2 to the power of this value in processor cycles, by default 26.
PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0", "OPENBLAS_THREAD_TIMEOUT": "4"}
# For a worker process, which prepares one clip at a time: with pools, 64 workers on 64 cores have 4,096 threads.
ONE_THREAD = dict.fromkeys(
    "OMP_NUM_THREADS OPENBLAS_NUM_THREADS MKL_NUM_THREADS VECLIB_MAXIMUM_THREADS NUMBA_NUM_THREADS".split(), "1"
)
_is_too_late = False  # whether torch was loaded before `wait_passively` set the environment
_is_reported = False


def wait_passively() -> None:
    """Set passive waiting in the environment of this process, for OpenMP libraries that are loaded later.

    Variables that the user has set are not changed. `import cinefeed` calls it.
    """
    global _is_too_late
    _is_too_late = _is_too_late or ("torch" in sys.modules and not is_passive())
    for name, value in PASSIVE.items():
        os.environ.setdefault(name, value)


def is_passive() -> bool:
    """Return whether torch's threads wait passively, or will do so once it is loaded."""
    return os.environ.get("OMP_WAIT_POLICY", "").strip().upper() == "PASSIVE" and not _is_too_late


def report_spinning() -> None:
    """Log a warning, once per process, if torch uses several CPU threads that spin while they wait."""
    global _is_reported
    torch = sys.modules.get("torch")
    if _is_reported or torch is None or is_passive() or not hasattr(torch, "get_num_threads"):
        return
    if torch.get_num_threads() < 2 or torch.cuda.is_available():
        return
    _is_reported = True
    _log.warning(
        "torch was imported before cinefeed, so its %d threads spin while they wait, which makes a step many times "
        "slower if other programs run; import cinefeed first, or set OMP_WAIT_POLICY=PASSIVE before Python starts",
        torch.get_num_threads(),
    )


def openmp_threads_setting() -> int | None:
    """Return the number of OpenMP threads in OMP_NUM_THREADS, or None if it is not a number.

    >>> import os
    >>> from unittest.mock import patch
    >>> with patch.dict(os.environ, OMP_NUM_THREADS="2,1"):  # for nested regions, the outermost first
    ...     openmp_threads_setting()
    2
    """
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isdigit() and int(first) else None
