"""Disk cache of the compiled loops, shared by all processes, clones and environments of a user.

numba's own cache has three faults: code stays valid when a kernel that it calls in another file changes, even after an
upgrade of this package; two processes that compile at the same time may give their files the same number, and one then
runs the code of the other; and a damaged file raises. Here a file is named by a digest of everything that its code
depends on, starts with a checksum, and is replaced if it does not load.
"""

import hashlib
import logging
import os
import pickle
import re
import shutil
import sys
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps
from numba.misc.appdirs import AppDirs

_log = logging.getLogger(__name__)
_HAS_KERNELS = re.compile(rb"^(from|import) numba|^@compiled", re.MULTILINE)
_DIGEST_BYTES = 16
_UNUSED_SECONDS = 60 * 24 * 3600  # code of other versions is deleted if it has not been used for this long
_reported_kinds: set[str] = set()


class KernelCache:
    """Cache of the compiled versions of one function, one file per signature. numba's dispatcher calls it.

    >>> KernelCache(len).load_overload("no signature", None) is None  # no file: numba compiles
    True
    """

    def __init__(self, function: Any) -> None:
        self._function = function

    @property
    def cache_path(self) -> str:
        """The folder of the cache files."""
        return str(cache_folder() or "")

    def load_overload(self, signature: Any, target: Any) -> Any:
        """Return the compiled function of a signature, or None if numba must compile it."""
        if target is None or (path := self._path(signature, target.codegen())) is None:
            return None
        try:
            content = path.read_bytes()
        except OSError:
            return None
        try:
            payload = content[_DIGEST_BYTES:]
            if _digest(payload) != content[:_DIGEST_BYTES]:
                raise ValueError("its checksum differs")
            target.refresh()
            # The cache is the user's own, and trusted like installed code (SECURITY.md).
            return CompileResult._rebuild(target, *pickle.loads(payload))
        except Exception as error:  # for every kind of damage, compiling again is right
            _report("damaged", f"{path} does not load ({type(error).__name__}: {error}); it is compiled again")
            return None

    def save_overload(self, signature: Any, result: Any) -> None:
        """Write the code of a signature to a temporary file, then rename it."""
        if result.lifted or result.library.has_dynamic_globals:
            return
        path = self._path(signature, result.codegen)
        if path is None:
            return
        payload = dumps(result._reduce())
        partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        try:
            partial.write_bytes(_digest(payload) + payload)
            partial.replace(path)
        except OSError as error:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            _report("unwritable", f"compiled code is not cached: {error}; set NUMBA_CACHE_DIR to a folder for it")

    def _path(self, signature: Any, codegen: Any) -> Path | None:
        folder = cache_folder()
        if folder is None:
            return None
        code = self._function.__code__
        closure = dumps(tuple(cell.cell_contents for cell in self._function.__closure__ or ()))
        # The key does not contain the path of the source, so that all clones of one version share the code.
        function_location = self._function.__module__, code.co_qualname, code.co_firstlineno
        key = repr((function_location, str(signature), codegen.magic_tuple())).encode()
        return folder / f"{code.co_name}-{_digest(key + code.co_code + closure).hex()}"


@cache
def cache_folder() -> Path | None:
    """Return the folder for the code of this version, created if needed; None if it cannot be written."""
    root = Path(os.environ.get("NUMBA_CACHE_DIR") or AppDirs("cinefeed", appauthor=False).user_cache_dir) / "kernels"
    try:
        folder = root / version_digest()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.utime(folder)
        if not os.access(folder, os.W_OK):
            raise PermissionError(f"{folder} cannot be written")
        _delete_unused(root)
    except OSError as error:
        _report(
            "unwritable",
            f"compiled code is not cached, so every process compiles for some seconds: {error}; "
            "set NUMBA_CACHE_DIR to a writable folder",
        )
        return None
    return folder


@cache
def version_digest() -> str:
    """Return a digest of the sources, libraries and interpreter that compiled code depends on."""
    package = Path(__file__).parents[1]
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    digest.update(repr((sys.version_info[:2], numba.__version__, llvmlite.__version__, np.__version__)).encode())
    for path in sorted(package.rglob("*.py")):
        source = path.read_bytes()
        if _HAS_KERNELS.search(source):
            digest.update(path.relative_to(package).as_posix().encode() + _digest(source))
    return digest.hexdigest()


def _delete_unused(root: Path) -> None:
    for folder in root.iterdir():
        with suppress(OSError):
            if time.time() - folder.stat().st_mtime > _UNUSED_SECONDS:
                shutil.rmtree(folder)


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_DIGEST_BYTES).digest()


def _report(kind: str, message: str) -> None:
    """Log a message, once per kind and process."""
    if kind not in _reported_kinds:
        _reported_kinds.add(kind)
        _log.warning("%s", message)
