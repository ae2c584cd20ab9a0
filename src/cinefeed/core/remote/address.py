"""Addresses of remote data: the root of a manifest on an object store, a web server or the Hugging Face Hub."""

import re
from dataclasses import dataclass
from pathlib import Path

from cinefeed.core.errors import SettingError

SCHEMES = ("s3", "gs", "az", "https", "http", "hf")
_ADDRESS = re.compile(r"(s3|gs|az|https?|hf):/+([^/]*)(.*)", re.DOTALL)  # a pathlib.Path makes "s3:/" of "s3://"
_QUERY = re.compile(r"\?[^\s\"'<>)]*")
_USER = re.compile(r"//[^/\s@]*@")


@dataclass(frozen=True)
class RemoteRoot:
    """The root of a manifest whose files are remote; `address` has no slash at its end.

    >>> RemoteRoot("s3://bucket/clips").join("a/1.mp4")
    's3://bucket/clips/a/1.mp4'
    """

    address: str

    def __str__(self) -> str:
        return self.address

    def as_posix(self) -> str:
        """Return the address."""
        return self.address

    def join(self, path: str) -> str:
        """Return the address of a file."""
        return f"{self.address}/{path.removeprefix('./')}"

    def resolve(self) -> "RemoteRoot":
        """Return the root itself, which is absolute."""
        return self

    @property
    def name(self) -> str:
        """The last part of the address."""
        return self.address.rpartition("/")[2]

    @property
    def scheme(self) -> str:
        """The scheme: s3, gs, az, https, http or hf."""
        return self.address.partition(":")[0]


Root = Path | RemoteRoot


def parse_root(root: str | Path | RemoteRoot) -> Root:
    """Return a folder as a Path, or a remote address as a RemoteRoot.

    Raises SettingError for an address that holds credentials: it would be stored in manifests and written to logs.

    >>> parse_root("s3://bucket/clips/"), parse_root(Path("s3://bucket/clips"))
    (RemoteRoot(address='s3://bucket/clips'), RemoteRoot(address='s3://bucket/clips'))
    """
    if isinstance(root, RemoteRoot):
        return root
    match = _ADDRESS.fullmatch(str(root))
    if match is None:
        return Path(root)
    scheme, host, path = match.groups()
    if not host:
        raise SettingError(f"{root} names no bucket or host; give an address such as {scheme}://NAME/folder")
    if "@" in host:
        raise SettingError(
            f"{without_secrets(str(root))} holds a user name or password, which would be stored in manifests; give "
            "the address without it, and the credentials in the environment (docs/remote.md)"
        )
    if "?" in path or "#" in path:
        raise SettingError(
            f"{without_secrets(str(root))} has a query, such as a signature, which would be stored in manifests; give "
            "the address without it, and the credentials in the environment (docs/remote.md)"
        )
    return RemoteRoot(f"{scheme}://{host}{path.rstrip('/')}")


def without_secrets(text: str) -> str:
    """Return a text without the queries of addresses, which may be signatures, and without user names before a host.

    >>> without_secrets("GET https://me:word@host/a.mp4?sig=abc failed")
    'GET https://...@host/a.mp4?... failed'
    """
    return _USER.sub("//...@", _QUERY.sub("?...", text))
