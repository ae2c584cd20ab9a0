"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest

DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real videos; a test that needs it is skipped, or fails where it is required, if it is absent."""
    if not (DATA / "facts.csv").exists():
        reason = f"no real videos in {DATA}"
        if os.environ.get("CINEFEED_REQUIRE") == "data":
            pytest.fail(reason)
        pytest.skip(reason)
    return DATA
