"""What is measured, that only equals are measured, and what is made of the numbers."""

from __future__ import annotations

import importlib.util
import json
import math
import platform
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from deeprnn import bench, comparison
from deeprnn.bench import Case, Spread
from deeprnn.machine import machine

SCRIPT = Path(__file__).parents[1] / "scripts" / "bench.py"
HERE = ("deeprnn", "gluon", "gluon-eager", "gluon-cells")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_script", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _short_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "SAMPLE_SECONDS", 1e-4)
    monkeypatch.setattr(bench, "sgemm_rate", lambda: 1e11)


def test_the_work_of_a_case_is_counted_by_hand() -> None:
    case = Case(3, 5, 2, 7, 11, cell="gru")
    inputs, recurrent = 3 * 5 * (3 + 5), 3 * 5 * (5 + 5)
    assert case.weights == (inputs, recurrent)
    assert case.multiply_adds("inference") == 7 * 11 * (inputs + recurrent)
    assert case.multiply_adds("training") == 3 * case.multiply_adds("inference")
    assert case.bytes_read("inference") == 4 * (inputs + 7 * recurrent)


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_weights_of_a_case_are_those_of_its_layer(cell: str, bidirectional: bool) -> None:
    case = Case(3, 4, 3, 2, 2, cell=cell, bidirectional=bidirectional)
    layer = bench.build("gluon", case)
    sizes = [math.prod(p.shape) for name, p in layer.collect_params().items() if name.endswith("weight")]
    assert sum(sizes) == sum(case.weights)


def test_the_limit_is_the_slower_of_product_and_memory() -> None:
    case = Case(256, 256, 2, 35, 32)
    assert case.limit("inference", 1e9, 1e30) == 2 * case.multiply_adds("inference") / 1e9
    assert case.limit("inference", 1e30, 1e9) == case.bytes_read("inference") / 1e9


@pytest.mark.parametrize("wrong", [{"layers": 0}, {"cell": "elman"}, {"layout": "CNT"}, {"activation": "sigmoid"}])
def test_a_case_that_cannot_be_is_refused_by_name(wrong: dict[str, Any]) -> None:
    sizes = {"input_size": 2, "hidden_size": 2, "layers": 1, "length": 2, "batch_size": 2}
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Case(**{**sizes, **wrong})


def test_a_spread_knows_whether_the_machine_was_busy() -> None:
    assert Spread.of([1.0, 2.0, 3.0]) == Spread(2.0, 1.5, 2.5, 3)
    assert not Spread.of([1.0, 2.0, 3.0]).steady
    assert Spread.of([1.0, 1.01, 1.02]).steady


def test_a_ratio_is_taken_round_by_round() -> None:
    # Each round on a machine twice as slow as the last: the ratio does not see it.
    assert bench.ratio([1.0, 2.0, 4.0], [2.0, 4.0, 8.0]) == Spread(0.5, 0.5, 0.5, 3)
    assert bench.ratio([1.0, 2.0, 4.0], [2.0]).count == 1


def test_all_take_turns_and_asides_may_sit_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "ASIDE_SECONDS", 1.0)
    seen: list[str] = []

    def timer(name: str, seconds: float) -> Any:
        def time(calls: int) -> float:
            seen.append(name)
            return seconds

        return time

    timers = {name: timer(name, seconds) for name, seconds in (("a", 1.0), ("b", 2.0), ("slow", 9.0))}
    samples = bench.take_turns(timers, rounds=20, asides=["slow"])
    assert {name: len(times) for name, times in samples.items()} == {"a": 20, "b": 20, "slow": bench.ASIDE_ROUNDS}
    turns = [name for name in seen[6:] if name != "slow"]
    pairs = [tuple(turns[i : i + 2]) for i in range(0, 40, 2)]
    assert set(pairs) == {("a", "b"), ("b", "a")}  # each once a round, in an order that changes


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"activation": "relu", "bidirectional": True},
        {"cell": "gru", "layout": "NTC"},
        {"cell": "lstm", "bidirectional": True, "layout": "NTC"},
    ],
    ids=str,
)
def test_all_contestants_agree_and_are_timed(options: dict[str, Any]) -> None:
    case = Case(3, 4, 2, 5, 2, **options)
    record = bench.measure(case, HERE, rounds=2)
    assert record["differences"].keys() == set(HERE) - {"gluon"}
    assert max(record["differences"].values()) < 1e-5
    for work in bench.WORKS:
        assert record[work]["seconds"].keys() == set(HERE)
        assert all(spread["count"] == 2 and spread["median"] > 0 for spread in record[work]["seconds"].values())
        assert record[work]["ratios"].keys() == set(HERE) - {"deeprnn"}
        assert record[work]["limit"] > 0
    json.dumps(record, allow_nan=False)


@pytest.mark.parametrize("cell", ["lstm", *(pytest.param(cell, marks=pytest.mark.slow) for cell in ("rnn", "gru"))])
def test_pytorch_takes_part_in_a_process_of_its_own(cell: str) -> None:
    pytest.importorskip("torch")
    case = Case(3, 4, 2, 5, 2, cell=cell, bidirectional=True, layout="NTC")
    record = bench.measure(case, ("deeprnn", "pytorch"), rounds=2)
    assert record["differences"]["pytorch"] < 1e-5
    assert record["training"]["seconds"]["pytorch"]["median"] > 0
    assert record["pytorch"]


def test_who_computes_something_else_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(bench.Here):
        def results(self) -> dict[str, np.ndarray]:
            results = super().results()
            results["d l1_h2h_weight"] = results["d l1_h2h_weight"] * 1.001
            return results

        def time(self, work: str, calls: int) -> float:
            raise AssertionError("timed")

    monkeypatch.setitem(bench.CONTESTANTS, "deeprnn", lambda problem: Wrong("deeprnn", problem))
    said = "deeprnn and gluon are not the same function: d l1_h2h_weight differs by 1.0e-03"
    with pytest.raises(RuntimeError, match=said):
        bench.measure(Case(3, 4, 2, 5, 2), ("deeprnn", "gluon"), rounds=1)


def test_the_cost_is_measured_in_a_new_process() -> None:
    cost = bench.cost(Case(64, 256, 2, 50, 16), ("deeprnn",))["deeprnn"]
    assert cost["first_call"] is not None and 0 < cost["first_call"] < 30
    if sys.platform == "linux":
        assert cost["memory"] is not None
        assert 1e6 < cost["memory"] < 1e9  # not this process's


def record_of(*cases: dict[str, Any]) -> dict[str, Any]:
    return {"date": "2020-01-01", "machine": machine(), "cell": "rnn", "cases": list(cases)}


def case_of(sizes: tuple[int, ...], ratio: float, high: float = 0.0) -> dict[str, Any]:
    case = Case(*sizes)  # type: ignore[arg-type]
    ratios = {"gluon": {"median": ratio, "low": ratio, "high": high or ratio, "count": 20}}
    seconds = {"deeprnn": {"median": 0.004, "low": 0.004, "high": 0.004, "count": 20}}
    return {
        "case": vars(case),
        "name": case.name,
        "inference": {"seconds": seconds, "ratios": ratios, "limit": 0.003},
        "cost": {"deeprnn": {"first_call": 1.25, "memory": 5e6}, "gluon": {"first_call": 0.5, "memory": None}},
    }


def test_the_summary_is_a_geometric_mean_without_the_one_step() -> None:
    cases = [case_of((512, 512, 2, 35, 64), 0.5), case_of((64, 64, 2, 50, 16), 2.0), case_of(bench.ONE_STEP, 0.05)]
    summary = bench.summary(cases)
    assert set(summary) == {"inference"}
    gluon = summary["inference"]["ratios"]["gluon"]
    assert gluon["mean"] == pytest.approx(1.0)
    assert gluon["worst"] == {"case": "64,64,2,50,16", "ratio": 2.0}
    assert gluon["one_step"] == 0.05
    assert gluon["busy"] == []
    assert summary["inference"]["share_of_limit"] == pytest.approx(0.75)  # of the first case alone


def test_the_table_says_busy_instead_of_a_verdict() -> None:
    text = bench.table(record_of(case_of((64, 64, 2, 50, 16), 0.5), case_of((128, 128, 3, 100, 100), 0.8, high=1.6)))
    lines = text.splitlines()
    assert any("64, 64, 2, 50, 16 " in line and "| 4 |" in " ".join(line.split()) and "0.50" in line for line in lines)
    assert any("busy: 0.80 to 1.60" in line for line in lines)
    assert any("geometric mean" in line and "busy in 1" in line for line in lines)
    assert any("1.25; 5" in line and "0.50; ?" in line for line in lines)
    assert "75%" in text


def test_the_picture_is_a_png(tmp_path: Path) -> None:
    bench.picture(record_of(case_of((64, 64, 2, 50, 16), 0.5)), tmp_path / "ratios.png")
    assert (tmp_path / "ratios.png").read_bytes().startswith(b"\x89PNG")


def test_the_books_loop_learns_the_same_and_both_are_timed() -> None:
    sizes = {"vocab_size": 20, "hidden_size": 8, "layers": 2, "seq_len": 5, "batch_size": 4}
    speed = comparison.language_model_speed("lstm", rounds=2, **sizes)
    assert speed["characters_per_second"].keys() == {"deeprnn", "deeprnn, one-hot", "the book's loop"}
    assert speed["ratios"].keys() == {"deeprnn", "deeprnn, one-hot"}
    json.dumps(speed, allow_nan=False)


def test_a_loop_that_learns_something_else_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison.BookLoop, "_clip_gradients", lambda self: None)
    with pytest.raises(RuntimeError, match="not the same function"):
        comparison.language_model_speed(vocab_size=20, hidden_size=8, layers=1, seq_len=5, batch_size=4, rounds=1)


def test_the_script_measures_writes_and_shows(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, image = tmp_path / "rnn.json", tmp_path / "rnn.png"
    arguments = ["--cells-of-grid", "3,4,1,5,2", "2,3,2,1,1", "--contestants", "deeprnn", "gluon", "--rounds", "2"]
    arguments += ["--work", "inference", "--json", str(file), "--picture", str(image)]
    assert script.main(arguments) == 0
    shown = capsys.readouterr().out
    record = json.loads(file.read_text())
    assert [case["name"] for case in record["cases"]] == ["3,4,1,5,2", "2,3,2,1,1"]
    assert record["machine"]["cores"] >= 1 and record["machine"]["mxnet"] == "1.9.1"
    assert image.stat().st_size > 1000
    assert script.main(["--table", str(file)]) == 0
    assert capsys.readouterr().out == shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--cells-of-grid", "256,256,2"], "five sizes"),
        (["--cells-of-grid", "256,256,two,35,32"], "five sizes"),
        (["--cell", "elman"], "invalid choice: 'elman'"),
        (["--rounds", "0"], "--rounds must be at least 1, got 0"),
        (["--cell", "gru", "--activation", "relu"], "--activation relu is for --cell rnn"),
        (["--json", "nowhere/rnn.json"], "no folder nowhere"),
        (["--table", "nowhere.json"], "nowhere.json"),
    ],
)
def test_wrong_usage_is_told_in_one_line(
    script: ModuleType, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        script.main(arguments)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert said in error and error.startswith("bench.py: error: ") and error.count("\n") == 1


def test_the_machine_is_named_by_its_kind_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "node", lambda: pytest.fail("asked for the host's name"))
    it = machine()
    assert {"processor", "cores", "instruction_set", "python", "mxnet", "numpy", "deeprnn"} <= it.keys()
    assert it["cores"] >= 1 and it["mxnet"] == "1.9.1"
