"""The two implementations of a recurrence: the native operator, and MXNet's own operators where it does not serve."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deeprnn.nn import native


def _implementation(name: str) -> Iterator[str]:
    if name == "native" and not native.status().available:
        pytest.skip(str(native.status()))
    with native.switched(name == "native"):
        yield name


@pytest.fixture(params=["native", "fallback"])
def implementation(request: pytest.FixtureRequest) -> Iterator[str]:
    """Layers that are called in a test run as the native operator, or as MXNet's own operators."""
    yield from _implementation(request.param)


@pytest.fixture
def needs_native() -> Iterator[str]:
    """The native operator serves."""
    yield from _implementation("native")


@pytest.fixture
def graph(request: pytest.FixtureRequest) -> Iterator[str]:
    """How a layer is run, which a test names: ``eager`` and ``native`` by the native operator, hybridized or not;
    ``static`` and ``dynamic`` by the two forms of a graph without it.
    """
    for _ in _implementation("native" if request.param in ("eager", "native") else "fallback"):
        yield request.param
