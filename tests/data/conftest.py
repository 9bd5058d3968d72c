"""What the tests of texts share."""

from __future__ import annotations

import pytest


@pytest.fixture
def write(tmp_path):
    """Write bytes to a file of that name; gives its path as a string."""

    def write(name: str, data: bytes) -> str:
        (tmp_path / name).write_bytes(data)
        return str(tmp_path / name)

    return write
