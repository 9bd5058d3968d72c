"""A cell of the user's own: registered by a file, trained, saved, and never loaded unless it is named."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest
import yaml
from commands import losses

from deeprnn.cli.main import main
from deeprnn.models import LanguageModel, language_model, register_cell
from deeprnn.models.plugins import load_plugin

MGU = Path(__file__).parent / "mgu.py"


@pytest.fixture(autouse=True)
def _registry(monkeypatch):
    """Every test begins with the built-in cells."""
    built_in = {name: language_model.STACKS["deeprnn"][name] for name in language_model.CELLS}
    monkeypatch.setitem(language_model.STACKS, "deeprnn", built_in)


@pytest.fixture
def plugin(tmp_path):
    """Write a plugin; gives its path."""

    def write(code: str) -> str:
        (tmp_path / "mine.py").write_text(code)
        return str(tmp_path / "mine.py")

    return write


def error_of(capsys) -> str:
    error = capsys.readouterr().err
    assert error.startswith("deeprnn: error: ") and error.count("\n") == 1
    return error.removeprefix("deeprnn: error: ").rstrip("\n")


def forget_registered():
    for name in set(language_model.cells()) - set(language_model.CELLS):
        del language_model.STACKS["deeprnn"][name]


def test_a_cell_in_one_file_trains_resumes_generates_and_is_evaluated(train, tmp_path, capsys):
    run = tmp_path / "run"
    code, shown = train("--cell", "mgu", "--plugin", str(MGU), "--epochs", "2")
    assert code == 0
    assert losses(run)[1] < losses(run)[0]
    options = yaml.safe_load((run / "config.yaml").read_text())
    assert (options["cell"], options["plugin"]) == ("mgu", str(MGU))
    assert json.loads((run / "summary.json").read_text())["test_loss"] > 0
    assert f"deeprnn generate {run} --plugin {shlex.quote(str(MGU))}" in shown.out

    for command in (["generate", str(run), "--length", "5"], ["evaluate", str(run)]):
        forget_registered()
        assert main(command) == 2
        assert error_of(capsys) == (
            f"the run in {run} uses the cell 'mgu' of the plugin {MGU}; it holds code, so it is loaded only if you "
            f"name it again: --plugin {MGU}"
        )
        assert "mgu" not in language_model.cells()
        assert main([*command, "--plugin", str(MGU)]) == 0
        assert capsys.readouterr().err == ""
    forget_registered()
    code, shown = train("--epochs", "3", "--resume", "--cell", "mgu")
    assert code == 2 and "loaded only if you name it again: --plugin" in shown.err and shown.out == ""
    code, shown = train("--epochs", "3", "--resume", "--cell", "mgu", "--plugin", str(MGU))
    assert code == 0 and len(losses(run)) == 3


def test_a_configuration_file_does_not_load_code(train, tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text(f"cell: mgu\nplugin: {MGU}\n")
    code, shown = train("--config", str(mine))
    assert code == 2 and "loaded only if you name it again: --plugin" in shown.err
    assert "mgu" not in language_model.cells()
    assert train("--config", str(mine), "--plugin", str(MGU), "--epochs", "1")[0] == 0


def test_a_class_of_a_file_or_a_module(train, monkeypatch):
    assert train("--cell", "mine", "--plugin", f"{MGU}:MGUCell", "--epochs", "1")[0] == 0
    assert "mine" in language_model.cells()
    monkeypatch.syspath_prepend(str(MGU.parent))
    load_plugin("mgu:MGUCell", "again")
    assert "again" in language_model.cells()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (
            "x = 1",
            "does not register the cell 'mgu': call deeprnn.models.register_cell('mgu', Class) in it, or name the",
        ),
        ("def f(:", "cannot be loaded: SyntaxError: "),
        ("raise KeyError('x')", "cannot be loaded: KeyError: 'x'"),
        ("import no_such_module", "cannot be loaded: No module named 'no_such_module'"),
        (
            "from deeprnn.models import register_cell as r; r('rnn', int)",
            "ValueError: name must not be that of a built-in",
        ),
        (
            "from deeprnn.models import register_cell as r; r('mgu', 3)",
            "TypeError: cell must be a RecurrentCell or a class or",
        ),
        ("from deeprnn.models import register_cell as r; r('mgu', dict)", "layers of 'mgu' cannot be made: "),
        (
            "from mxnet import gluon; from deeprnn.models import register_cell as r\n"
            "class Stack(gluon.nn.HybridSequential):\n"
            "    def __init__(self, *args, **kwargs): super().__init__()\n"
            "r('mgu', Stack)",
            "the layers of 'mgu' have no begin_state and no state_info",
        ),
        (
            "from deeprnn import DeepRNN; from deeprnn.models import register_cell as r\n"
            "class Stack(DeepRNN):\n"
            "    def hybrid_forward(self, F, x, states, **params): raise RuntimeError('not written yet')\n"
            "r('mgu', Stack)",
            "a pass over two steps failed: RuntimeError: not written yet",
        ),
    ],
)
def test_what_a_plugin_lacks_is_reported_before_any_work(train, plugin, tmp_path, code, expected):
    path = plugin(code)
    exit_code, shown = train("--cell", "mgu", "--plugin", path)
    assert exit_code == 2 and shown.out == ""
    assert shown.err.count("\n") == 1 and shown.err.startswith(f"deeprnn: error: --plugin {path}")
    assert expected in shown.err
    assert not (tmp_path / "run").exists()


def test_a_missing_class_is_named(train):
    code, shown = train("--cell", "mgu", "--plugin", f"{MGU}:Missing")
    assert code == 2 and shown.err == f"deeprnn: error: --plugin {MGU}:Missing: {MGU} has no Missing\n"


def test_registered_cells_in_python():
    load_plugin(str(MGU), "mgu")
    net = LanguageModel(vocab_size=7, hidden_size=4, num_layers=2, cell="mgu", residual=True)
    net.initialize()
    ids = mx.nd.array([[0, 1], [2, 3], [4, 5]], dtype="int32")
    eager, states = net(ids, net.begin_state(2))
    assert eager.shape == (3, 2, 7) and states[0].shape == (2, 2, 4)
    net.hybridize(static_alloc=True, static_shape=True)
    np.testing.assert_allclose(net(ids, net.begin_state(2))[0].asnumpy(), eager.asnumpy(), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="cell must be one of 'rnn', 'gru', 'lstm', 'mgu', got 'nope'"):
        LanguageModel(vocab_size=7, hidden_size=4, cell="nope")
    for name in ("", "a b", "lstm", 3):
        with pytest.raises(ValueError, match="name must"):
            register_cell(name, LanguageModel)
