"""Requests to object stores, web servers and the Hugging Face Hub: list, size and tag, and ranges of bytes.

obstore makes the requests to `s3://`, `gs://`, `az://` and `https://`, huggingface_hub those to `hf://`. Credentials
come from the chains of these libraries alone.
"""

import asyncio
import os
from collections.abc import Iterator
from datetime import timedelta
from importlib.util import find_spec
from typing import Any, NamedTuple, Protocol

from cinefeed.core.errors import MissingExtraError
from cinefeed.core.remote.address import RemoteRoot

PACKAGES = ("obstore", "fsspec", "huggingface_hub")  # of the extra `remote`
METADATA_SERVICE = "169.254.169.254"  # of cloud machines: the last place where credentials are looked for
TIMEOUT_SECONDS = 60.0  # of one request; a piece of 4 MB then needs 70 kB/s
_PERMANENT = (
    "PermissionDeniedError UnauthenticatedError NotSupportedError InvalidPathError UnknownConfigurationKeyError"
).split()


class RemoteFile(NamedTuple):
    """Path of a file relative to the root, its bytes, and its tag: the ETag, or else its modification time, or ""."""

    path: str
    size: int
    tag: str


class Store(Protocol):
    """A remote folder. Each call is one request, without retries."""

    def list(self) -> Iterator[RemoteFile]:
        """Yield all files below the root."""
        ...

    async def head(self, path: str) -> RemoteFile:
        """Return size and tag of a file."""
        ...

    async def read(self, path: str, span: tuple[int, int] | None) -> tuple[RemoteFile, Any]:
        """Return size and tag of a file, and its bytes from `span[0]` to before `span[1]`; None is the whole file."""
        ...


def open_store(root: RemoteRoot) -> Store:
    """Return the store of an address. Raises MissingExtraError if its packages are not installed."""
    needed = PACKAGES[1:] if root.scheme == "hf" else PACKAGES[:1]
    if missing := [name for name in needed if find_spec(name) is None]:
        raise MissingExtraError(*missing, extra="remote", hint=f" to read {root}")
    return HubStore(root) if root.scheme == "hf" else ObjectStore(root)


def is_permanent(error: Exception) -> bool:
    """Return whether a request would fail again: the file is absent, or access is denied, or the path is invalid."""
    return isinstance(error, FileNotFoundError | PermissionError | ValueError) or type(error).__name__ in _PERMANENT


class ObjectStore:
    """A bucket, or a folder of it, or of a web server, by obstore."""

    def __init__(self, root: RemoteRoot) -> None:
        import obstore  # and not obstore.store: other threads import obstore too

        endpoint = next((os.environ[name] for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
                         if name in os.environ), "")  # fmt: skip
        is_plain = root.scheme == "http" or (root.scheme == "s3" and endpoint.startswith("http://"))
        self._store: Any = obstore.store.from_url(
            root.address,
            client_options={"timeout": timedelta(seconds=TIMEOUT_SECONDS), "allow_http": is_plain},
            retry_config={"max_retries": 0},  # files.py repeats requests, and counts them
        )

    def list(self) -> Iterator[RemoteFile]:
        """Yield all files below the root."""
        import obstore

        for batch in obstore.list(self._store):
            yield from map(_described, batch)

    async def head(self, path: str) -> RemoteFile:
        """Return size and tag of a file."""
        import obstore

        return _described(await obstore.head_async(self._store, path))

    async def read(self, path: str, span: tuple[int, int] | None) -> tuple[RemoteFile, Any]:
        """Return size and tag of a file, and some or all of its bytes."""
        import obstore

        options: Any = {} if span is None else {"range": span}
        result = await obstore.get_async(self._store, path, options=options)
        return _described(result.meta), await result.bytes_async()


def _described(meta: Any) -> RemoteFile:
    tag = (meta["e_tag"] or "").removeprefix("W/").strip('"')
    modified = meta["last_modified"]
    if not tag and modified is not None and modified.timestamp() > 0:
        tag = modified.isoformat()
    return RemoteFile(meta["path"], meta["size"], tag)


class HubStore:
    """A repository of the Hugging Face Hub, or a folder of it, by huggingface_hub."""

    def __init__(self, root: RemoteRoot) -> None:
        from huggingface_hub import HfFileSystem

        self._root = root
        self._files: Any = HfFileSystem()

    def list(self) -> Iterator[RemoteFile]:
        """Yield all files below the root."""
        prefix = f"{self._files._strip_protocol(self._root.address)}/"
        for path, info in self._files.find(self._root.address, detail=True).items():
            yield _of_hub(path.removeprefix(prefix), info)

    async def head(self, path: str) -> RemoteFile:
        """Return size and tag of a file."""
        return _of_hub(path, await asyncio.to_thread(self._files.info, self._root.join(path)))

    async def read(self, path: str, span: tuple[int, int] | None) -> tuple[RemoteFile, Any]:
        """Return size and tag of a file, and some or all of its bytes."""

        def read() -> tuple[RemoteFile, Any]:
            address = self._root.join(path)
            info = self._files.info(address)
            return _of_hub(path, info), self._files.cat_file(address, *(span or ()))

        return await asyncio.to_thread(read)


def _of_hub(path: str, info: Any) -> RemoteFile:
    return RemoteFile(path, int(info["size"]), str((info.get("lfs") or {}).get("sha256") or info.get("blob_id") or ""))
