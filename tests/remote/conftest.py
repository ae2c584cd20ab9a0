"""Videos of several formats, on servers on loopback, behind a proxy that injects faults."""

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
from servers import AWS, BUCKET, Faults, file_server, proxy, s3_server

from cinefeed.data.manifest.manifest import Manifest
from cinefeed.data.manifest.remote import default_files
from cinefeed.testing import numbered_frames, write_video

sys.path.append(str(Path(__file__).parents[1] / "feed"))  # epoch_digests
VIDEOS = 40


@pytest.fixture(autouse=True)
def extra(monkeypatch, tmp_path):
    """Skip without obstore; the default cache is a folder of the test, and connections do not outlive it."""
    pytest.importorskip("obstore", reason="the extra 'remote' is not installed")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    default_files.cache_clear()
    yield
    default_files.cache_clear()


@pytest.fixture(scope="session")
def videos(tmp_path_factory) -> Path:
    """A folder of 40 videos: arrays, encoded videos, and folders of images."""
    folder = tmp_path_factory.mktemp("remote") / "videos"
    rng = np.random.default_rng(5)
    for row in range(VIDEOS):
        path = folder / f"p{row % 4}" / f"v{row:02}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        frames = rng.integers(0, 255, (12, 40, 44 + row), np.uint8)
        if row % 8 == 1:
            write_video(path.with_suffix(".mp4"), numbered_frames(12, first=50 * row))
        elif row % 8 == 2:
            path.with_suffix("").mkdir()
            for number, frame in enumerate(frames[:6]):
                cv2.imwrite(str(path.with_suffix("") / f"{number:02}.png"), frame)
        else:
            np.save(path, frames)
    return folder


@pytest.fixture(scope="session")
def labels() -> pa.Table:
    """Labels of the videos by their stems."""
    rows = range(VIDEOS)
    return pa.table(
        {
            "stem": [f"v{row:02}" for row in rows],
            "number": [float(row * row) for row in rows],
            "name": ["rare" if row % 7 == 0 else "common" for row in rows],
        }
    )


@pytest.fixture(scope="session")
def local(videos, labels) -> Manifest:
    """The manifest of the videos as local files."""
    return Manifest.scan(videos, labels=labels, progress=False)


@pytest.fixture(scope="session")
def bucket(videos) -> Iterator[str]:
    """The address of an S3 server with the videos."""
    pytest.importorskip("moto", reason="moto is not installed")
    pytest.importorskip("flask_cors", reason="the server of moto is not installed")
    with s3_server(videos) as address:
        yield address


@pytest.fixture
def behind_proxy(monkeypatch) -> Iterator[Callable[..., str]]:
    """Return a function that puts a proxy before a server, and gives its address."""
    with ExitStack() as stack:

        def start(upstream: str, *, faults: Faults | None = None, latency_seconds: float = 0.0) -> str:
            address = stack.enter_context(proxy(upstream, faults=faults, latency_seconds=latency_seconds))
            for name, value in (AWS | {"AWS_ENDPOINT_URL": address}).items():
                monkeypatch.setenv(name, value)
            return address

        yield start


@pytest.fixture
def web(videos) -> Iterator[str]:
    """The address of a web server with the videos."""
    with file_server(videos) as address:
        yield address


@pytest.fixture
def s3(bucket, behind_proxy) -> str:
    """The root of the videos on S3."""
    behind_proxy(bucket)
    return f"s3://{BUCKET}"
