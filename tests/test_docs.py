"""The documents: links and paths exist, tables are those of the records, code runs, and both languages say the same."""

from __future__ import annotations

import ast
import functools
import json
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon, nd

import deeprnn
from deeprnn import testing
from deeprnn.testing import distance

PROJECT = Path(__file__).resolve().parents[1]
RECORDS = PROJECT / "benchmarks"
PAGES = ["README.md", "README.zh-CN.md", "CHANGELOG.md", *(f"docs/{p.name}" for p in (PROJECT / "docs").glob("*.md"))]
NOTEBOOKS = ["docs/notebooks/deep-rnn.ipynb", "docs/notebooks/deep-rnn.zh-CN.ipynb"]
FOLDERS = ("src", "docs", "tests", "tools", "scripts", "configs", "benchmarks")
every_page = pytest.mark.parametrize("page", sorted(PAGES))


def read(page):
    """The text of a page; of a notebook that of its cells, code and outputs left out."""
    text = (PROJECT / page).read_text(encoding="utf-8")
    if page.endswith(".ipynb"):
        return "\n\n".join("".join(c["source"]) for c in json.loads(text)["cells"] if c["cell_type"] == "markdown")
    return text


def prose(page):
    """A page without its blocks of code and its comments."""
    return re.sub(r"```.*?```|^    .*?$|<!--.*?-->", "", read(page), flags=re.DOTALL | re.MULTILINE)


def blocks(page):
    return re.findall(r"```python\n(.*?)```", read(page), flags=re.DOTALL)


def anchors(page):
    """The headings of a page as GitHub links to them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", read(page), flags=re.DOTALL), flags=re.MULTILINE)
    named = re.findall(r'<a name="([\w-]+)">', read(page))
    return {*named, *(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings)}


# What a page points at


@pytest.mark.parametrize("page", sorted([*PAGES, *NOTEBOOKS]))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", read(page), flags=re.DOTALL)):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = unquote(target).partition("#")
        file = ((PROJECT / page).parent / path).resolve() if path else PROJECT / page
        assert file.exists() and file.is_relative_to(PROJECT), f"{page}: no {target}"
        if anchor:
            assert anchor in anchors(str(file.relative_to(PROJECT))), f"{page}: no heading for #{anchor}"


@every_page
def test_paths_that_a_page_names_exist(page):
    text = read(page)
    found = re.finditer(rf"(?<![\w/.~-])(?:{'|'.join(FOLDERS)})/[\w./-]*\w", text)
    named = {match[0] for match in found if text[match.end() : match.end() + 1] not in tuple("$<{*")}
    missing = {path for path in named if not (PROJECT / path).exists()}
    assert not missing, f"{page} names {sorted(missing)}"


@functools.cache
def functions_of_the_tests():
    return {
        name
        for file in (PROJECT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (\w+)\(", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    }


@every_page
def test_tests_that_a_page_names_exist(page):
    missing = set(re.findall(r"\btest_[a-z]\w*\b(?!\.py)", read(page))) - functions_of_the_tests()
    assert not missing, f"{page} names {sorted(missing)}"


# Figures


def made_by(name):
    """A program in benchmarks/, as a module."""
    sys.path.insert(0, str(RECORDS))
    try:
        return __import__(name)
    finally:
        sys.path.pop(0)


def record(name):
    return json.loads((RECORDS / f"{name}.json").read_text(encoding="utf-8"))


def table_of(mark, language):
    """What belongs between the marks, made from its record."""
    from tools import bench_report, growth

    kind, _, name = mark.partition(":")
    short, depth = made_by("readme_tables").TABLES, made_by("depth_tables").TABLES
    if mark in short:
        return short[mark](language)
    if kind == "depth":
        return depth[name]()
    if kind == "bench":
        return bench_report.brief(record(name.replace("-", "_")))
    if kind == "growth":
        return growth.brief(record("growth" if name == "rnn" else f"growth_{name}"))
    if kind == "usage":
        return bench_report.sections(record("usage" if name == "lstm" else f"usage_{name}"))[mark]
    if kind == "lengths":
        return bench_report.sections(record(kind))[mark]
    if kind == "operators":
        return made_by("operators").report(record("operators"))
    if kind in ("compression", "scaling"):
        return made_by(kind).table(record(kind))
    raise AssertionError(f"no record is known for <!-- {mark} -->")


@every_page
def test_the_tables_of_a_page_are_those_of_the_records(page):
    text = read(page)
    for mark in re.findall(r"<!-- ([\w:-]+) -->", text):
        if f"<!-- /{mark} -->" in text and mark != "account":
            found = text.partition(f"<!-- {mark} -->\n")[2].partition(f"<!-- /{mark} -->")[0]
            expected = table_of(mark, "zh" if "zh-CN" in page else "en")
            assert found.strip() == expected.strip(), (
                f"{page}, {mark}: run benchmarks/readme_tables.py or depth_tables.py"
            )


ACCOUNTS = ["README.zh-CN.md", "docs/depth.md", "docs/forum.md"]


@pytest.mark.parametrize("page", ACCOUNTS)
def test_why_two_layers_are_worse_is_answered_in_one_way_with_the_records_figures(page):
    account = re.search(r"<!-- account -->(.*?)<!-- /account -->", read(page), flags=re.DOTALL)
    assert account
    book, changes = record("book")["median"], record("changes")["perplexity"]
    expected = [f"{book[layers]['250']:.3f}" for layers in "12"]
    expected += [f"{changes[way]['8']['median']:.1f}" for way in ("weights alone", "the book")]
    expected += [f"{changes['all'][layers]['median']:.3f}" for layers in "28"]
    assert re.findall(r"\d+\.\d{3}|\d{3}\.\d", account[1]) == expected
    assert changes["weights alone"]["8"]["median"] > changes["the book"]["8"]["median"]
    alone = [changes[f"{what} alone"]["2"]["median"] for what in ("weights", "optimizer", "residual", "embedding")]
    assert min(alone) > 100 * changes["all"]["2"]["median"]  # no single one is enough


def test_the_readme_says_how_close_the_two_layers_are():
    at_most = {"float32": 0.0, "float64": 0.0}
    for one in record("compare")["parity"]:
        if one["peer"] == "gluon":
            at_most[one["dtype"]] = max(at_most[one["dtype"]], *one["distances"].values())
    numbers = [f"{value:.1e}".replace("e-0", "e-") for value in at_most.values()]
    assert "at most {} in float32 and {} in float64".format(*numbers) in " ".join(read("README.md").split())


# Code


@pytest.mark.parametrize("page", ["README.md", "README.zh-CN.md"])
def test_the_code_of_the_readme_runs_and_its_formula_is_the_layer(page):
    layer_code, formula_code = blocks(page)
    names = {}
    exec(layer_code, names)
    assert names["outputs"].shape == (35, 32, 256) and names["states"][0].shape == (2, 32, 256)
    exec(formula_code, names)
    layer = deeprnn.DeepRNN(5, 3, "tanh", input_size=4)
    layer.initialize()
    testing.randomize(layer)
    value = {name[len(layer.prefix) :]: p.data() for name, p in layer.collect_params().items()}
    weights = [
        (value[f"l{i}_i2h_weight"].T, value[f"l{i}_h2h_weight"].T, value[f"l{i}_i2h_bias"] + value[f"l{i}_h2h_bias"])
        for i in range(3)
    ]
    x, begin = nd.random.normal(shape=(6, 2, 4)), nd.random.normal(shape=(3, 2, 5))
    outputs, states = names["rnn"](list(x), list(begin), weights)
    expected, (last,) = layer(x, [begin])
    assert distance(nd.stack(*outputs), expected) <= 1e-6 and distance(nd.stack(*states), last) <= 1e-6


def test_the_two_layers_of_the_forum_page_are_the_built_in_layer():
    T, N, C, H = 6, 3, 4, 5
    names = {}
    exec(blocks("docs/forum.md")[0], names)
    params = names["get_params"](C, H)
    for i, param in enumerate(params):
        param[:] = nd.array(np.random.default_rng(i).normal(0, 0.3, param.shape))
    layer = gluon.rnn.RNN(H, 2, "tanh", input_size=C)
    layer.initialize()
    own = {name[len(layer.prefix) :]: p for name, p in layer.collect_params().items()}
    for i in range(2):
        W_xh, W_hh, b = params[3 * i : 3 * i + 3]
        own[f"l{i}_i2h_weight"].set_data(W_xh.T)
        own[f"l{i}_h2h_weight"].set_data(W_hh.T)
        own[f"l{i}_i2h_bias"].set_data(b)
    x, weigh = nd.random.normal(shape=(T, N, C)), nd.random.normal(shape=(T, N, H))
    state = names["init_rnn_state"](N, H)
    assert len(state) == 2
    with autograd.record():
        outputs, states = names["rnn"](list(x), state, params)
        total = (nd.stack(*outputs) * weigh).sum()
    total.backward()
    with autograd.record():
        expected, (last,) = layer(x, layer.begin_state(N))
        total = (expected * weigh).sum()
    total.backward()
    assert distance(nd.stack(*outputs), expected) <= 1e-5 and distance(nd.stack(*states), last) <= 1e-5
    for i in range(2):
        W_xh, W_hh, b = params[3 * i : 3 * i + 3]
        for ours, name in ((W_xh.grad.T, "i2h_weight"), (W_hh.grad.T, "h2h_weight"), (b.grad, "i2h_bias")):
            assert distance(ours, own[f"l{i}_{name}"].grad()) <= 1e-5


def test_the_cell_of_the_cells_page_runs_trains_and_is_exported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mgu", raising=False)
    cell, use, register, check = blocks("docs/cells.md")
    (tmp_path / "mgu.py").write_text(cell, encoding="utf-8")
    names = {}
    exec(use, names)  # as layers, trained, exported
    layer, x = names["layer"], names["x"]
    assert all(np.abs(p.grad().asnumpy()).max() > 0 for p in layer.collect_params().values() if "h2h" in p.name)
    shorter = x[:9]
    for ours, theirs in zip(names["again"](shorter, *layer.begin_state(32)), layer(shorter, layer.begin_state(32))):
        assert distance(ours, theirs[0] if isinstance(theirs, list) else theirs) <= 1e-5
    exec(check, names)  # against NumPy
    exec(cell + register, {})
    net = deeprnn.LanguageModel(7, 5, 3, cell="mgu", residual=True)
    net.initialize()
    assert net(nd.array([[1, 2], [3, 4], [5, 6]], dtype="int32"))[0].shape == (3, 2, 7)


def test_the_code_of_the_service_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, *others = blocks("docs/service.md")
    names = {}
    exec(first, names)
    names["before"].initialize()
    names["before"].save_parameters("forecaster.params")
    for code in others:
        exec(code, names)
    assert names["parity"].same
    x = mx.nd.random.normal(shape=(2, 5, 8))
    assert distance(names["served"](x), names["after"](x)) <= 1e-6
    assert distance(names["outputs"], names["expected"]) <= 1e-6


def test_the_code_of_the_export_page_runs(tmp_path, monkeypatch):
    for package in ("safetensors", "onnx"):
        pytest.importorskip(package, reason="pip install .[onnx]")
    monkeypatch.chdir(tmp_path)
    names = {}
    for code in blocks("docs/export.md"):
        exec(code, names)
    ids = mx.nd.array([[1, 2]], dtype="int32")
    states = names["net"].begin_state(2)
    assert distance(names["step"](ids, *states)[0], names["net"](ids, states)[0]) <= 1e-6
    assert names["vocabulary"].idx_to_token == ["<unk>", *"abcdef"]


# Notebooks


def notebook_code(page):
    cells = json.loads((PROJECT / page).read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def test_both_notebooks_have_the_same_code():
    """So that what one of them does when it runs, the other does, too."""

    def bare(source):  # comments and docstrings apart
        tree = ast.parse(source.replace("%matplotlib inline", "inline"))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and ast.get_docstring(node):
                del node.body[0]
        return ast.dump(tree)

    cells = [[bare("".join(cell["source"])) for cell in notebook_code(page)] for page in NOTEBOOKS]
    assert cells[0] == cells[1]
    metadata = [json.loads((PROJECT / page).read_text(encoding="utf-8"))["metadata"] for page in NOTEBOOKS]
    assert metadata[0] == metadata[1]


@pytest.mark.parametrize("page", NOTEBOOKS)
def test_a_notebook_is_stored_without_results(page):
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in notebook_code(page))


@pytest.mark.parametrize("page", [NOTEBOOKS[0], pytest.param(NOTEBOOKS[1], marks=pytest.mark.slow)])
def test_a_notebook_runs_and_shows_what_it_says(page, tmp_path):
    pytest.importorskip("nbclient", reason="pip install .[test]")
    # In a process of its own: Jupyter's event loop and warnings are not what is tested.
    script = """
import sys
import nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
check = "assert max(apart) < 1e-4 and better[2][-1] < better[1][-1] < worse[1][-1] < worse[2][-1] and len(text) == 200"
notebook.cells.append(nbformat.v4.new_code_cell(check))
NotebookClient(notebook, timeout=300, kernel_name="python3").execute(cwd=sys.argv[2])
assert sum("image/png" in o.get("data", {}) for c in notebook.cells for o in c.get("outputs", [])) == 1
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(PROJECT / page), str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]


# Words

NOT_OURS = r"\b(told|said|stands?|comes? of it|way back|rooms?|floors?|drawn for|pieces?|(?<!written )by hand)\b"


@pytest.mark.parametrize("page", sorted({*PAGES, NOTEBOOKS[0]} - {"README.zh-CN.md", "docs/speed.md"}))
def test_pages_use_the_fields_words(page):
    found = re.findall(NOT_OURS, prose(page), flags=re.IGNORECASE)
    assert not found, f"{page}: {found}"


@pytest.mark.parametrize("folder", ["src", "scripts", "tools", "benchmarks"])
def test_sources_use_the_fields_words(folder):
    files = [path for path in (PROJECT / folder).rglob("*") if path.suffix in (".py", ".h", ".cc", ".sh", ".j2")]
    assert files
    for path in files:
        found = re.findall(
            r"\b(told|said|stands|comes? of it|way back|rooms?|drawn for)\b", path.read_text(), re.IGNORECASE
        )
        assert not found, f"{path}: {found}"


@pytest.mark.parametrize("page", sorted([*PAGES, *NOTEBOOKS]))
def test_pages_name_no_machines_paths(page):
    assert not re.search(r"/(home|root|tmp|work|Users)/", (PROJECT / page).read_text(encoding="utf-8"))


def test_make_help_lists_each_target():
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    targets = re.search(r"^\.PHONY: (.*)$", makefile, flags=re.MULTILINE)
    listed = subprocess.run(["make", "-s", "help"], cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    assert targets and [line.split()[0] for line in listed.splitlines()] == targets[1].split()
    assert all(len(line.split()) > 2 for line in listed.splitlines())
