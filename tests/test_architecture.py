"""The house: floors, branches, what the front door loads, and a test for each line of the table of differences."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import deeprnn

PACKAGE = Path(deeprnn.__file__).parent
PROJECT = Path(__file__).parent.parent

FLOORS = {
    "_types": 0, "arguments": 0, "checks": 0, "config": 0, "files": 0, "machine": 0, "target": 0,
    "cells": 1, "initializers": 1, "corpus": 1, "repetition": 1,
    "unroll": 2, "bptt": 2, "batches": 2,
    "lengths": 3, "stack": 3,
    "language_model": 4, "parity": 4,
    "training": 5, "checkpoint": 5, "depth": 5, "generation": 5, "contestants": 5, "bench": 5, "torch_worker": 5,
    "export": 6, "report": 6, "bench_report": 6, "growth": 6, "comparison": 6, "page": 6,
    "cli": 7, "study": 7, "serve": 7, "launch": 7,
    "__main__": 8,
}  # fmt: skip
"""A room imports rooms below its floor; on its own floor, as long as no circle comes of it."""

TEXT = {"corpus", "batches"}
MODEL = {"target", "cells", "initializers", "unroll", "bptt", "lengths", "stack", "language_model", "parity"}
GRAPH = ["cells", "unroll", "bptt", "stack", "lengths", "language_model"]

HEAVY = ["gluonnlp", "matplotlib", "onnx", "yaml", "tqdm", "jsonargparse", "torch", "tensorboardX", "requests"]


def room_of(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


SOURCES = {path: ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py")) if path.name != "__init__.py"}
ROOMS = sorted({room_of(path) for path in SOURCES})


def imports(tree):
    """The rooms and the libraries that a module imports, inside its functions too."""
    rooms, libraries = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first, *rest = alias.name.split(".")
                (rooms if first == "deeprnn" and rest else libraries).add(
                    rest[0] if first == "deeprnn" and rest else first
                )
        elif isinstance(node, ast.ImportFrom):
            parts = (node.module or "").split(".")
            if node.level == 0 and parts[0] != "deeprnn":
                libraries.add(parts[0])
                continue
            parts = parts if node.level else parts[1:]
            rooms.update([parts[0]] if parts and parts[0] else [alias.name for alias in node.names])
    return {room for room in rooms if not room.startswith("__version")}, libraries


IMPORTS = {}
for path, tree in SOURCES.items():
    found = imports(tree)[0] - {room_of(path)}
    IMPORTS[room_of(path)] = IMPORTS.get(room_of(path), set()) | found


def test_every_room_has_a_floor():
    assert set(ROOMS) <= set(FLOORS)


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_downwards_only(room):
    upwards = {other for other in IMPORTS[room] if FLOORS[other] > FLOORS[room]}
    assert not upwards, f"{room} (floor {FLOORS[room]}) imports {sorted(upwards)} from above"


def test_no_circles():
    done, order = set(), []

    def visit(room, path):
        assert room not in path, " -> ".join([*path, room])
        if room not in done:
            for other in sorted(IMPORTS.get(room, ())):
                visit(other, [*path, room])
            done.add(room)
            order.append(room)

    for room in ROOMS:
        visit(room, [])
    assert order


def reachable(room):
    seen, todo = set(), [room]
    while todo:
        for other in IMPORTS.get(todo.pop(), ()):
            if other not in seen:
                seen.add(other)
                todo.append(other)
    return seen


@pytest.mark.parametrize("room", sorted(TEXT | MODEL))
def test_text_and_model_know_nothing_of_each_other(room):
    assert not reachable(room) & (MODEL if room in TEXT else TEXT)


def test_the_loop_knows_no_model_and_no_text():
    assert not reachable("training") & (MODEL | TEXT)


@pytest.mark.parametrize("room", sorted(MODEL))
def test_the_model_needs_mxnet_and_numpy_alone(room):
    libraries = imports(SOURCES[PACKAGE / f"{room}.py"])[1]
    assert libraries - set(sys.stdlib_module_names if sys.version_info >= (3, 10) else libraries) <= {"mxnet", "numpy"}
    assert not libraries & set(HEAVY)


@pytest.mark.parametrize(
    "action", ["import deeprnn", "import deeprnn; deeprnn.DeepLSTM(4); deeprnn.LanguageModel(5, 4)"]
)
def test_the_front_door_loads_nothing_heavy(action):
    # mxnet itself may take requests along: what counts is what comes on top of it.
    script = (
        f"import sys\nimport mxnet\nbefore = set(sys.modules)\n{action}\n"
        f"print([name for name in {HEAVY} if name in sys.modules and name not in before])"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_front_door_offers_its_names():
    assert set(deeprnn.__all__) <= set(dir(deeprnn))
    assert all(hasattr(deeprnn, name) for name in deeprnn.__all__)


@pytest.mark.parametrize("room", GRAPH)
def test_nothing_in_a_graph_waits_for_an_array(room):
    called = {node.attr for node in ast.walk(SOURCES[PACKAGE / f"{room}.py"]) if isinstance(node, ast.Attribute)}
    assert not called & {"asnumpy", "asscalar", "wait_to_read", "waitall"}


@pytest.mark.parametrize("room", GRAPH)
def test_the_fused_operator_is_not_called(room):
    called = {node.attr for node in ast.walk(SOURCES[PACKAGE / f"{room}.py"]) if isinstance(node, ast.Attribute)}
    allowed = {"RNN"} if room == "language_model" else set()  # gluon's layer, for comparing
    assert not (called - allowed) & {"RNN", "rnn_param_concat", "_rnn_param_concat"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_a_room_says_what_it_does(path):
    assert ast.get_docstring(SOURCES[path])


def test_each_difference_has_its_test():
    text = (PROJECT / "docs" / "differences.md").read_text()
    rows = [
        line for line in text.splitlines() if line.startswith("| ") and not line.endswith((" Held by |", " Shown by |"))
    ]
    assert len(rows) > 20
    for row in rows:
        named = re.findall(r"(test_\w+\.py)::(test_\w+)", row)
        assert named, f"no test: {row}"
        for file, test in named:
            tree = ast.parse((PROJECT / "tests" / file).read_text())
            assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, (
                f"{file} has no {test}"
            )


def test_the_tables_of_depth_are_those_of_the_records():
    sys.path.insert(0, str(PROJECT / "benchmarks"))
    try:
        import depth_tables
    finally:
        sys.path.pop(0)
    page = depth_tables.PAGE.read_text(encoding="utf-8")
    assert depth_tables.filled(page) == page, "python benchmarks/depth_tables.py"
