"""What a run leaves to look at."""

from __future__ import annotations

import json
import math
import sys

import pytest

from deeprnn.train import reports
from deeprnn.train.loop import EpochReport


def epoch(number: int, **changes) -> EpochReport:
    loss = 4.0 / number
    fields = {
        "epoch": number,
        "train_loss": loss,
        "train_perplexity": math.exp(loss),
        "valid_loss": loss + 0.1,
        "valid_perplexity": math.exp(loss + 0.1),
        "tokens_per_second": 1e5,
        "seconds": 1.5,
        "learning_rate": 1e-3,
        "grad_norm": 0.25,
        "step": 100 * number,
        "best_epoch": number,
        "best_loss": loss + 0.1,
    }
    return EpochReport(**{**fields, **changes})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


def test_metrics_come_back(path):
    for number in (1, 2, 3):
        reports.append_metrics(path, epoch(number))
    rows = reports.read_metrics(path)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert rows[1]["train_loss"] == 2.0
    assert rows[2]["step"] == 300
    assert len(path.read_text().splitlines()) == 3
    asked_for = ["epoch", "train_loss", "train_perplexity", "valid_loss", "valid_perplexity"]
    assert list(rows[0])[:9] == [*asked_for, "tokens_per_second", "seconds", "learning_rate", "grad_norm"]


def test_every_line_is_json_whatever_the_numbers(path):
    reports.append_metrics(path, epoch(1, train_perplexity=math.inf, grad_norm=math.nan, valid_loss=None))

    def refuse(constant):
        raise AssertionError(constant)

    row = json.loads(path.read_text(), parse_constant=refuse)
    assert (row["train_perplexity"], row["grad_norm"], row["valid_loss"]) == (None, None, None)


def test_a_torn_last_line_is_left_out_and_replaced(path):
    for number in (1, 2):
        reports.append_metrics(path, epoch(number))
    whole = path.read_text()
    for cut in (5, 60):
        path.write_text(whole + whole.splitlines()[1][:cut])
        assert [row["epoch"] for row in reports.read_metrics(path)] == [1, 2]
    reports.append_metrics(path, epoch(3))
    assert [json.loads(line)["epoch"] for line in path.read_text().splitlines()] == [1, 2, 3]


def test_a_resumed_run_replaces_the_epochs_that_it_repeats(path):
    for number in range(1, 7):
        reports.append_metrics(path, epoch(number))
    reports.append_metrics(path, epoch(4, train_loss=9.0))
    rows = reports.read_metrics(path)
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert rows[-1]["train_loss"] == 9.0


def test_damage_elsewhere_is_named(path):
    for number in (1, 2, 3):
        reports.append_metrics(path, epoch(number))
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1][:-9], lines[2]]) + "\n")
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2 is not JSON"):
        reports.read_metrics(path)


def test_no_metrics(path):
    with pytest.raises(FileNotFoundError, match=r"metrics\.jsonl is missing"):
        reports.read_metrics(path)


def drawn(monkeypatch, path, rows, title=""):
    """The figure that `curves` saves, and the PNG's size."""
    from matplotlib.figure import Figure

    figures = []
    savefig = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (figures.append(self), savefig(self, *a, **k)))
    reports.curves(rows, path, title)
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG")
    return figures[0], (int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big"))


def labels(figure) -> list:
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def test_the_picture(path, tmp_path, monkeypatch):
    for number in range(1, 13):
        reports.append_metrics(path, epoch(number, best_epoch=min(number, 8)))
    rows = reports.read_metrics(path)
    figure, size = drawn(monkeypatch, tmp_path / "curves.png", rows, "pydoc, rnn 2 x 256")
    assert size == (1200, 810)
    upper, lower = figure.axes
    assert upper.get_title(loc="left") == "pydoc, rnn 2 x 256"
    assert upper.get_yscale() == "log"  # 54 down to 1.4
    assert upper.get_ylabel() == "perplexity per token" and lower.get_ylabel() == "learning rate"
    assert lower.get_xlabel() == "epoch"
    assert upper.lines[0].get_ydata().tolist() == [row["train_perplexity"] for row in rows]
    assert upper.lines[1].get_ydata().tolist() == [row["valid_perplexity"] for row in rows]
    assert lower.lines[0].get_ydata().tolist() == [1e-3] * 12
    assert labels(figure) == [
        "running training, 1.396 at the end",
        "validation, 1.542 at the end",
        "best, 1.822 at epoch 8",
    ]


def test_a_picture_without_validation_and_with_a_gap(tmp_path, monkeypatch):
    rows = [vars(epoch(n, valid_loss=None, valid_perplexity=None, train_perplexity=5.0 + n)) for n in (1, 2, 3)]
    rows[1] = {**rows[1], "train_perplexity": None}
    figure, _ = drawn(monkeypatch, tmp_path / "curves.png", rows)
    assert labels(figure) == ["running training, 8 at the end"]
    assert figure.axes[0].get_yscale() == "linear"
    assert math.isnan(figure.axes[0].lines[0].get_ydata()[1])


def test_a_picture_of_one_epoch(tmp_path, monkeypatch):
    figure, _ = drawn(monkeypatch, tmp_path / "curves.png", [vars(epoch(1))])
    assert len(labels(figure)) == 3


def test_no_picture_of_nothing(tmp_path):
    with pytest.raises(ValueError, match="metrics must have at least one epoch, got none"):
        reports.curves([], tmp_path / "curves.png")


def test_events(tmp_path):
    tensorboardx = pytest.importorskip("tensorboardX", reason="pip install .[tensorboard]")
    with reports.EventWriter(tmp_path / "events") as writer:
        writer.add(epoch(1))
        writer.add(epoch(2, valid_loss=None))
    (events,) = (tmp_path / "events").iterdir()
    content = events.read_bytes()
    for name in (b"train_loss", b"valid_perplexity", b"learning_rate"):
        assert name in content
    assert tensorboardx.__name__ == "tensorboardX"


def test_events_without_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ValueError, match=r"tensorboardX is not installed: pip install 'deeprnn\[tensorboard\]'"):
        reports.EventWriter(tmp_path / "events")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("title", [r"a$b.txt", r"$\frac{", "分开ไทย\U0001f600", "line\nbreak\x00", "caf\udce9"])
def test_a_title_is_no_formula_and_no_warning(path, tmp_path, title):
    reports.append_metrics(path, epoch(1))
    reports.curves(reports.read_metrics(path), tmp_path / "curves.png", title=title)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_rows_of_epochs_that_will_be_made_again_are_left_out(path):
    reports.trim_metrics(path, 2)  # nothing there yet
    for number in (1, 2, 3):
        reports.append_metrics(path, epoch(number))
    reports.trim_metrics(path, 2)
    assert [row["epoch"] for row in reports.read_metrics(path)] == [1, 2]
