"""Both ways to read an encoded video: by compiled code where it can, and by PyAV alone."""

import pytest

from cinefeed.video.ffmpeg import source as encoded


@pytest.fixture(params=["compiled", "pyav"])
def way(request, monkeypatch):
    """Run a test both ways; tests that need no way run once."""
    if request.param == "pyav":
        monkeypatch.setattr(encoded, "open_fast_decoder", lambda *arguments, **settings: None)
    return request.param
