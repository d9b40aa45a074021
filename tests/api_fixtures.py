"""Fixtures for tests of the HTTP API: a tape made by hand, and the API on it."""

from __future__ import annotations

import pytest

from api_client import asking, client
from handmade import Handmade


@pytest.fixture
def made(tmp_path):
    """A tape that grows as it is told."""
    made = Handmade(tmp_path / "tape.db")
    yield made
    made.close()


@pytest.fixture
def api(made):
    """The API on that tape."""
    with client(made.path) as api:
        yield api


@pytest.fixture
def get(api):
    """What it answers at a path, which has to be data."""
    return asking(api)
