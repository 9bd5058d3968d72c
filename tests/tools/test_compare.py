"""This package's layer and the built-in one, side by side: the verdict, and that it can be no."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Callable

import matplotlib.image
import pytest

import deeprnn
from tools import bench, clock, comparison, comparison_report
from tools.contestants import Case
from tools.progress import Steps

SCRIPT = Path(__file__).parents[2] / "scripts" / "compare.py"
SMALL = ["--hidden-size", "6", "--input-size", "4", "--seq-len", "5"]
SMALL += ["--batch-size", "3", "--steps", "3", "--rounds", "2"]


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "SAMPLE_SECONDS", 1e-4)
    monkeypatch.setattr(bench, "sgemm_rate", lambda: 1e11)
    monkeypatch.setattr(comparison, "ECHO_STEPS", 20)


@pytest.fixture()
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours takes the recurrent bias with the wrong sign."""

    copy = comparison.copy_parameters

    def with_another_sign(source: Any, target: Any) -> None:
        copy(source, target)
        if isinstance(target, deeprnn.DeepRNN):
            for name, parameter in target.collect_params().items():
                if name.endswith("h2h_bias"):
                    parameter.set_data(-parameter.data())

    monkeypatch.setattr(comparison, "copy_parameters", with_another_sign)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"layers": 3},
        {"activation": "relu"},
        {"bidirectional": True, "layout": "NTC"},
        {"cell": "gru"},
        {"cell": "lstm", "bidirectional": True, "layers": 3},
    ],
    ids=str,
)
def test_they_are_the_same_function(options: dict[str, Any]) -> None:
    case = Case(4, 6, options.pop("layers", 2), 5, 3, **options)
    record = comparison.compare_layers(case, trainer_steps=3, rounds=2)
    assert record["same"], record["parity"]
    for row in record["parity"]:
        assert set(row["distances"]) == set(comparison.KINDS)
    counted = [(row["dtype"], row["peer"]) for row in record["parity"] if row["counts"]]
    assert ("float32", "gluon") in counted and ("float64", "gluon-cells") in counted
    wrong_in_float64 = case.cell == "rnn" and (case.layers > 2 or case.activation == "relu")
    assert (("float64", "gluon") in counted) != wrong_in_float64
    assert record["speed"]["training"]["ratios"]["gluon"]["median"] > 0
    json.dumps(record, allow_nan=False)


def test_the_losses_begin_and_stay_together() -> None:
    curves = comparison.compare_layers(Case(4, 16, 2, 6, 8), trainer_steps=0, rounds=1)["curves"]
    assert curves["deeprnn"] == pytest.approx(curves["gluon"], rel=1e-4)
    assert curves["deeprnn"][-1] < curves["deeprnn"][0]
    assert curves["difference"] < 1e-4


def test_the_built_in_layers_own_error_is_shown_and_does_not_count() -> None:
    record = comparison.compare_layers(Case(4, 6, 2, 5, 3, activation="relu"), trainer_steps=1, rounds=1)
    row = next(row for row in record["parity"] if (row["dtype"], row["peer"]) == ("float64", "gluon"))
    assert not row["counts"] and not row["same"] and row["distances"]["outputs"] > 1e-10
    assert "the built-in layer is wrong here" in comparison_report.report(record)


@pytest.mark.usefixtures("broken")
def test_a_difference_is_found_named_and_not_timed() -> None:
    record = comparison.compare_layers(Case(4, 6, 2, 5, 3), trainer_steps=1, rounds=1)
    assert not record["same"]
    assert record["speed"] is None
    text = comparison_report.report(record)
    assert "NOT the same function: " in text and "not measured" in text
    assert not comparison_report.picture(record).axes[1].axison  # nothing was timed
    json.dumps(record, allow_nan=False)


def test_the_picture_shows_differences_times_and_losses() -> None:
    record = comparison.compare_layers(Case(4, 6, 2, 5, 3), trainer_steps=3, rounds=2)
    figure = comparison_report.picture(record)
    differences, times, losses = figure.axes
    assert [label.get_text() for label in differences.get_xticklabels()] == [
        *("outputs", "states", "gradients", "weights after\n3 steps")
    ]
    assert differences.get_yscale() == "log"
    row = record["parity"][0]
    drawn = next(line for line in differences.lines if line.get_label() == "float32, built-in layer")
    assert set(drawn.get_ydata()) == {value for value in row["distances"].values() if value}
    levels = [line.get_ydata()[0] for line in differences.lines if line.get_linestyle() == "--"]
    assert levels == [1e-5, 1e-10]  # what is allowed in float32 and float64
    heights = [bar.get_height() for bar in times.patches]
    assert heights == [
        1e3 * record["speed"][work]["seconds"][name]["median"]
        for name in ("deeprnn", "gluon")
        for work in ("inference", "training")
    ]
    assert "ms" in times.get_title() and losses.get_xlabel() == "step"
    curves = {line.get_label(): list(line.get_ydata()) for line in losses.lines}
    assert curves == {name: record["curves"][name] for name in ("deeprnn", "gluon")}
    assert figure.get_suptitle().startswith("DeepRNN and gluon.rnn.RNN: 2 layers of 6 units")


def test_the_script_says_yes(script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, image = tmp_path / "layers.json", tmp_path / "layers.png"
    assert script.main(["layers", "--layers", "2", *SMALL, "--json", str(file), "--picture", str(image)]) == 0
    shown, progress = capsys.readouterr()
    assert shown.startswith("DeepRNN and gluon.rnn.RNN: input 4, hidden 6, layers 2")
    assert shown.endswith("The same function.\n")
    assert comparison_report.report(json.loads(file.read_text())) == shown
    assert matplotlib.image.imread(image).shape[:2] == (4.2 * 150, 12 * 150)
    lines = progress.splitlines()
    assert lines == [f"{i} of {len(lines)}: {step}" for i, step in enumerate(comparison.steps(), 1)]
    assert lines[0] == "1 of 6: comparing in float32 with the built-in layer" and "timing both" in lines[3]


def test_on_a_terminal_progress_is_one_live_line(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    with Steps(["first", "second"]) as steps:
        steps.begin("first")
        steps.begin("second")
    assert "\rfirst" in terminal.getvalue() and "\rsecond" in terminal.getvalue()
    assert "\n" not in terminal.getvalue()


@pytest.mark.usefixtures("broken")
def test_the_script_says_no_with_exit_code_1(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["layers", *SMALL]) == 1
    assert "NOT the same function" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: COMMAND"),
        (["layer"], "invalid choice: 'layer'"),
        (["layers", "--layers", "0"], "--layers must be at least 1, got 0"),
        (["layers", "--hidden-size", "-3"], "--hidden-size must be at least 1, got -3"),
        (["layers", "--seq-len", "many"], "invalid int value: 'many'"),
        (["layers", "--cell", "elman"], "invalid choice: 'elman'"),
        (["layers", "--cell", "lstm", "--activation", "relu"], "--activation relu is for --cell rnn"),
        (["layers", "--picture", "nowhere/layers.png"], "the folder nowhere of nowhere/layers.png does not exist"),
    ],
)
def test_an_invalid_argument_is_reported_in_one_line(
    refusal: Callable[[Sequence[str]], str], arguments: list[str], message: str
) -> None:
    assert message in refusal(arguments)
