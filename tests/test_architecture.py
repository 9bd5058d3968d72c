"""What may import what, what `import deeprnn` loads, and a test for each line of the table of differences."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import deeprnn

PACKAGE = Path(deeprnn.__file__).parent
PROJECT = Path(__file__).parent.parent

LEVELS = {
    "_util.arguments": 0, "_util.checks": 0, "_util.files": 0, "_util.machine": 0, "_util.old_numpy": 0,
    "_util.extras": 0, "_util.signals": 0, "_util.types": 0, "_util.wording": 0,
    "config.fields": 1, "config.run": 1, "config.commands": 1, "config.resolution": 1, "config": 1,
    "_util.shares": 0,
    "distributed.role": 1, "distributed.wire": 1, "distributed.hub": 1, "distributed.watch": 1,
    "distributed.workers": 1,
    "nn.context": 1,
    "nn.arrays": 2, "nn.operators": 2, "nn.cells": 2, "nn.initializers": 2,
    "data.download": 2, "data.reading": 2, "data.text": 2, "data.unpacking": 2, "data.decoding": 2, "data.symbols": 2,
    "data.writing": 2, "data.encoded": 2, "data.progress": 2, "data.cache": 2,
    "nn.native": 3, "models.packed": 4, "nn.unroll": 3, "nn.unfused": 3, "data.batches": 3,
    "nn.graphs": 4, "nn.stack": 4, "nn.layers": 4,
    "models.language_model": 5, "models.plugins": 5, "models.sampled": 5, "testing": 5,
    "train.schedule": 6, "train.loss": 6, "train.progress": 6, "train.loop": 6,
    "train.storage": 6, "train.checkpoint": 6, "train.keeping": 6, "train.lock": 6, "train.optimizer_state": 6,
    "train.position": 6, "train.interfaces": 6, "train.parts": 6, "train.random_state": 6, "train.saving": 6,
    "train.signals": 6,
    "nn.diagnostics": 6, "generation": 6, "evaluation": 6, "sampling": 1, "runtimes": 1,
    "export.architecture": 6, "export.torch": 6, "export.manifest": 6, "export.card": 6,
    "export.symbol": 6, "export.onnx_graph": 6, "export.onnx_scan": 6, "export.onnx": 6,
    "export.folder": 6, "export": 6,
    "train.reports": 7,
    "cli.console": 8, "cli.options": 8, "cli.runs": 8, "cli.models": 8, "cli.train": 8, "cli.training": 8,
    "serve.errors": 7, "serve.fields": 7, "serve.jobs": 7, "serve.batch": 7, "serve.engine": 7, "serve.served": 7,
    "serve.answers": 7, "serve.metrics": 7, "serve.completions": 7, "serve.app": 7, "serve.guard": 7,
    "serve.server": 7, "cli.serve": 8,
    "cli.generate": 8, "cli.evaluate": 8, "cli.export": 8, "cli.main": 8,
    "cli.launch": 8, "cli.processes": 8,
    "__main__": 9,
}  # fmt: skip
"""A module imports modules of lower levels, and of its own level as long as there is no cycle."""

TEXT = {name for name in LEVELS if name.startswith("data.")}
MODEL = {
    *("nn.context", "nn.arrays", "nn.operators", "nn.cells", "nn.initializers", "nn.native", "nn.unroll", "nn.graphs"),
    *("nn.unfused", "nn.stack", "nn.layers"),
    *("models.language_model", "models.packed", "models.plugins", "testing"),
}
GRAPH = [
    *("nn.arrays", "nn.cells", "nn.native", "nn.unroll", "nn.graphs", "nn.stack", "nn.layers"),
    "models.language_model",
]

HEAVY = [
    *("gluonnlp", "matplotlib", "onnx", "onnxruntime", "safetensors", "yaml", "tqdm", "jsonargparse", "torch"),
    *("tensorboardX", "requests", "fastapi", "uvicorn"),
]


def module_of(path):
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def file_of(module):
    return PACKAGE.joinpath(*module.split(".")).with_suffix(".py")


SOURCES = {path: ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py")) if path.name != "__init__.py"}
MODULES = sorted({module_of(path) for path in SOURCES})


def imports(path):
    """The modules and the libraries that a module imports, inside its functions too."""
    modules, libraries = set(), set()
    for node in ast.walk(SOURCES[path]):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first, _, rest = alias.name.partition(".")
                if first == "deeprnn" and rest:
                    modules.add(rest)
                else:
                    libraries.add(first)
        elif isinstance(node, ast.ImportFrom):
            parts = node.module.split(".") if node.module else []
            if node.level:
                here = path.relative_to(PACKAGE).parts[: -node.level]
                parts = [*here, *parts]
            elif parts[0] == "deeprnn":
                parts = parts[1:]
            else:
                libraries.add(parts[0])
                continue
            for alias in node.names:
                module = ".".join([*parts, alias.name])
                modules.add(module if file_of(module).exists() else ".".join(parts))
    return modules - {"", "deeprnn"}, libraries


IMPORTS = {}
for path in SOURCES:
    found = imports(path)[0] - {module_of(path)}
    IMPORTS[module_of(path)] = IMPORTS.get(module_of(path), set()) | found


def test_every_module_has_a_level():
    assert set(MODULES) <= set(LEVELS)


@pytest.mark.parametrize("module", MODULES)
def test_modules_import_downwards_only(module):
    upwards = {other for other in IMPORTS[module] if LEVELS[other] > LEVELS[module]}
    assert not upwards, f"{module} (level {LEVELS[module]}) imports {sorted(upwards)} from above"


def test_no_cycles():
    done, order = set(), []

    def visit(module, path):
        assert module not in path, " -> ".join([*path, module])
        if module not in done:
            for other in sorted(IMPORTS.get(module, ())):
                visit(other, [*path, module])
            done.add(module)
            order.append(module)

    for module in MODULES:
        visit(module, [])
    assert order


def reachable(module):
    seen, todo = set(), [module]
    while todo:
        for other in IMPORTS.get(todo.pop(), ()):
            if other not in seen:
                seen.add(other)
                todo.append(other)
    return seen


@pytest.mark.parametrize("module", sorted(TEXT | MODEL))
def test_text_and_model_know_nothing_of_each_other(module):
    assert not reachable(module) & (MODEL if module in TEXT else TEXT)


def test_the_loop_knows_no_model_and_no_text():
    assert not reachable("train.loop") & (MODEL | TEXT)


def comes_with_python(library):
    if sys.version_info >= (3, 10):
        return library in sys.stdlib_module_names
    origin = importlib.util.find_spec(library).origin
    own = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib")]
    return origin in ("built-in", "frozen") or (origin.startswith(tuple(own)) and "site-packages" not in origin)


def test_what_comes_with_python():
    assert comes_with_python("json") and comes_with_python("sys") and comes_with_python("dataclasses")
    assert not comes_with_python("mxnet") and not comes_with_python("yaml")


@pytest.mark.parametrize("module", sorted(MODEL))
def test_the_model_needs_mxnet_and_numpy_alone(module):
    libraries = imports(file_of(module))[1]
    assert {library for library in libraries if not comes_with_python(library)} <= {"mxnet", "numpy"}
    assert not libraries & set(HEAVY)


@pytest.mark.parametrize(
    "action", ["import deeprnn", "import deeprnn; deeprnn.DeepLSTM(4); deeprnn.LanguageModel(5, 4)"]
)
def test_the_package_loads_nothing_heavy(action):
    # mxnet itself may take requests along: what counts is what comes on top of it.
    script = (
        f"import sys\nimport mxnet\nbefore = set(sys.modules)\n{action}\n"
        f"print([name for name in {HEAVY} if name in sys.modules and name not in before])"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_package_offers_its_names():
    assert set(deeprnn.__all__) <= set(dir(deeprnn))
    assert all(hasattr(deeprnn, name) for name in deeprnn.__all__)


@pytest.mark.parametrize("module", GRAPH)
def test_nothing_in_a_graph_waits_for_an_array(module):
    called = {node.attr for node in ast.walk(SOURCES[file_of(module)]) if isinstance(node, ast.Attribute)}
    assert not called & {"asnumpy", "asscalar", "wait_to_read", "waitall"}


@pytest.mark.parametrize("module", GRAPH)
def test_the_fused_operator_is_not_called(module):
    called = {node.attr for node in ast.walk(SOURCES[file_of(module)]) if isinstance(node, ast.Attribute)}
    allowed = {"RNN"} if module == "models.language_model" else set()  # gluon's layer, for comparing
    assert not (called - allowed) & {"RNN", "rnn_param_concat", "_rnn_param_concat"}


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_a_module_says_what_it_does(path):
    assert ast.get_docstring(SOURCES[path])


def test_each_difference_has_its_test():
    text = (PROJECT / "docs" / "differences.md").read_text()
    rows = [
        line for line in text.splitlines() if line.startswith("| ") and not line.endswith((" Tests |", " Shown by |"))
    ]
    assert len(rows) > 20
    for row in rows:
        named = re.findall(r"((?:\w+/)*test_\w+\.py)::(test_\w+)", row)
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
