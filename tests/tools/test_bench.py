"""Benchmarks: what is measured, that only equal functions are, and the tables and pictures of the records."""

from __future__ import annotations

import json
import math
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Callable

import matplotlib.image
import numpy as np
import pytest
from matplotlib.colors import to_hex

from deeprnn._util.machine import machine
from tools import bench, bench_report, book_loop, clock, contestants, growth, lengths, native, profiling, usage
from tools.clock import Spread
from tools.contestants import WORKS, Case
from tools.tables import fill, markdown_table, terminal_table

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench.py"
HERE = ("deeprnn", "gluon", "gluon-eager", "gluon-cells")


@pytest.fixture(autouse=True)
def _short_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "SAMPLE_SECONDS", 1e-4)
    monkeypatch.setattr(bench, "sgemm_rate", lambda: 1e11)
    monkeypatch.setattr(book_loop, "sgemm_rate", lambda: 1e11)


@pytest.fixture
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would be called in a new process is called in this one."""
    for module in (bench, growth, lengths, usage):
        monkeypatch.setattr(module, "alone", lambda function, *args, threads=None: function(*args))


def test_the_work_of_a_case_is_the_sum_of_its_products() -> None:
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
    layer = contestants.build("gluon", case)
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
    assert clock.ratio([1.0, 2.0, 4.0], [2.0, 4.0, 8.0]) == Spread(0.5, 0.5, 0.5, 3)
    assert clock.ratio([1.0, 2.0, 4.0], [2.0]).count == 1


def test_all_take_turns_and_asides_may_sit_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "ASIDE_SECONDS", 1.0)
    seen: list[str] = []

    def timer(name: str, seconds: float) -> Any:
        def time(calls: int) -> float:
            seen.append(name)
            return seconds

        return time

    timers = {name: timer(name, seconds) for name, seconds in (("a", 0.1), ("b", 0.2), ("slow", 9.0))}
    samples = clock.take_turns(timers, rounds=20, asides=["slow"])
    assert {name: len(times) for name, times in samples.items()} == {"a": 20, "b": 20, "slow": clock.LEAST_ROUNDS}
    turns = [name for name in seen[6:] if name != "slow"]
    pairs = [tuple(turns[i : i + 2]) for i in range(0, 40, 2)]
    assert set(pairs) == {("a", "b"), ("b", "a")}  # each once a round, in an order that changes


@pytest.mark.parametrize(("seconds", "rounds"), [(0.5, 20), (1.0, 11), (9.0, 5)])
def test_long_work_has_fewer_rounds(seconds: float, rounds: int) -> None:
    samples = clock.take_turns(dict.fromkeys("ab", lambda calls: seconds), rounds=20)
    assert {len(times) for times in samples.values()} == {rounds}  # 20 s in all, 5 rounds at least


def test_a_busy_machine_is_tried_again_and_the_steadiest_try_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = [{"a": [1.0, 2.0, 3.0]}, {"a": [1.0, 1.3, 1.6]}, {"a": [1.0, 2.0, 4.0]}, {"a": [1.0, 1.0, 1.0]}]
    left = iter({**samples, "b": [1.0] * 3} for samples in tries)
    monkeypatch.setattr(clock, "take_turns", lambda *args: next(left))
    timers = dict.fromkeys("ab", lambda calls: 1.0)
    assert clock.steadiest(timers)[0]["a"] == tries[1]["a"]
    samples, count = clock.steadiest(timers)  # steady at once
    assert samples["a"] == tries[3]["a"] and count == 1


def test_the_noise_of_an_aside_is_not_a_busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "take_turns", lambda *args: {"a": [1.0] * 3, "b": [1.0] * 3, "c": [1.0, 9.0, 99.0]})
    timers = dict.fromkeys("abc", lambda calls: 1.0)
    assert clock.steadiest(timers, asides=["c"])[1] == 1
    assert clock.steadiest(timers)[1] == clock.TRIES


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
    for work in WORKS:
        assert record[work]["seconds"].keys() == set(HERE)
        assert all(spread["count"] == 2 and spread["median"] > 0 for spread in record[work]["seconds"].values())
        assert record[work]["ratios"].keys() == set(HERE) - {"deeprnn"}
        assert record[work]["limit"] > 0 and 1 <= record[work]["tries"] <= clock.TRIES
    json.dumps(record, allow_nan=False)


@pytest.mark.parametrize("cell", ["lstm", *(pytest.param(cell, marks=pytest.mark.slow) for cell in ("rnn", "gru"))])
def test_pytorch_takes_part_in_a_process_of_its_own(cell: str) -> None:
    pytest.importorskip("torch", reason="pip install .[torch]")
    case = Case(3, 4, 2, 5, 2, cell=cell, bidirectional=True, layout="NTC")
    record = bench.measure(case, ("deeprnn", "pytorch"), rounds=2)
    assert record["differences"]["pytorch"] < 1e-5
    assert record["training"]["seconds"]["pytorch"]["median"] > 0
    assert record["pytorch"]["version"]
    if "OMP_NUM_THREADS" in os.environ:
        assert record["pytorch"]["threads"] == int(os.environ["OMP_NUM_THREADS"])


def test_who_computes_something_else_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(contestants.Here):
        def results(self) -> dict[str, np.ndarray]:
            results = super().results()
            results["d l1_h2h_weight"] = results["d l1_h2h_weight"] * 1.001
            return results

        def time(self, work: str, calls: int) -> float:
            raise AssertionError("timed")

    monkeypatch.setitem(bench.CONTESTANTS, "deeprnn", lambda problem: Wrong("deeprnn", problem))
    error = "deeprnn and gluon are not the same function: d l1_h2h_weight differs by 1.0e-03"
    with pytest.raises(RuntimeError, match=error):
        bench.measure(Case(3, 4, 2, 5, 2), ("deeprnn", "gluon"), rounds=1)


def test_the_cost_is_measured_in_a_new_process() -> None:
    cost = bench.cost(Case(64, 256, 2, 50, 16), ("deeprnn",))["deeprnn"]
    assert cost["first_call"] is not None and 0 < cost["first_call"] < 30
    if sys.platform == "linux":
        assert cost["memory"] is not None
        assert 1e6 < cost["memory"] < 1e9  # not this process's


def test_a_profile_counts_the_operators_of_one_call() -> None:
    profile = profiling.profile(Case(3, 4, 2, 3, 2), "inference")
    counts = {of["name"]: of["count"] for of in profile["operators"]}
    if native.native_status()["available"]:
        assert max(counts.values()) < 2 * 3  # one operator for all steps of a layer
    else:
        # Two layers of three steps, each a product with the last state, an addition and a tanh; and the input products.
        assert counts["Activation"] == 2 * 3 and counts["FullyConnected"] == 2 * 3 + 2
    assert sum(of["share"] for of in profile["operators"]) == pytest.approx(1)
    times = [of["milliseconds"] for of in profile["operators"]]
    assert times == sorted(times, reverse=True)
    json.dumps(profile, allow_nan=False)


def record_of(*cases: dict[str, Any]) -> dict[str, Any]:
    return {"date": "2020-01-01", "machine": machine(), "cell": "rnn", "cases": list(cases)}


def case_of(sizes: tuple[int, ...], ratio: float, high: float = 0.0) -> dict[str, Any]:
    case = Case(*sizes)  # type: ignore[arg-type]  # mypy takes the text for any of them
    ratios = {"gluon": {"median": ratio, "low": ratio, "high": high or ratio, "count": 20}}
    seconds = {"deeprnn": {"median": 0.004, "low": 0.004, "high": 0.004, "count": 20}}
    return {
        "case": vars(case),
        "name": case.name,
        "inference": {"seconds": seconds, "ratios": ratios, "limit": 0.003},
        "profile": {
            "inference": {
                "seconds": 0.01,
                "operators": [
                    {"name": f"operator{i}", "count": 300.0, "milliseconds": 2.0 - i / 10, "share": 0.1}
                    for i in range(9)
                ],
            }
        },
        "cost": {"deeprnn": {"first_call": 1.25, "memory": 5e6}, "gluon": {"first_call": 0.5, "memory": None}},
    }


def test_the_summary_is_a_geometric_mean_without_the_one_step() -> None:
    cases = [case_of((512, 512, 2, 35, 64), 0.5), case_of((64, 64, 2, 50, 16), 2.0), case_of(bench.ONE_STEP, 0.05)]
    summary = bench_report.summary(cases)
    assert set(summary) == {"inference"}
    gluon = summary["inference"]["ratios"]["gluon"]
    assert gluon["mean"] == pytest.approx(1.0)
    assert gluon["worst"] == {"case": "64,64,2,50,16", "ratio": 2.0}
    assert gluon["one_step"] == 0.05
    assert gluon["busy"] == []
    assert summary["inference"]["share_of_limit"] == pytest.approx(0.75)  # of the first case alone


def test_the_table_says_busy_instead_of_a_verdict() -> None:
    text = bench_report.report(
        record_of(case_of((64, 64, 2, 50, 16), 0.5), case_of((128, 128, 3, 100, 100), 0.8, high=1.6))
    )
    lines = text.splitlines()
    assert any("64, 64, 2, 50, 16 " in line and "| 4 |" in " ".join(line.split()) and "0.50" in line for line in lines)
    assert any("busy: 0.80 to 1.60" in line for line in lines)
    assert any("geometric mean" in line and "busy in 1" in line for line in lines)
    assert any("1.25; 5" in line and "0.50; ?" in line for line in lines)
    assert "75%" in text
    assert any("operator0" in line and "300" in line and "10%" in line for line in lines)
    assert any("others" in line and "900" in line and "30%" in line for line in lines)


def test_the_picture_has_a_row_for_each_case_and_a_hollow_mark_for_a_busy_machine() -> None:
    steady, busy = case_of((64, 64, 2, 50, 16), 0.5), case_of((128, 128, 3, 100, 100), 0.8, high=1.6)
    figure = bench_report.picture([record_of(steady, busy), {**record_of(steady), "cell": "gru"}])
    first, second = figure.axes
    assert (first.get_title(), second.get_title()) == ("rnn: inference", "gru: inference")
    assert [label.get_text() for label in first.get_yticklabels()] == ["64, 64, 2, 50, 16", "128, 128, 3, 100, 100"]
    assert first.get_ylim() == (1.5, -0.5)  # the first case above
    assert first.get_xscale() == "log" and second.get_xlabel().startswith("time of deeprnn / time of the other")
    marks = [line for line in first.lines if line.get_marker() == "o"]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in marks] == [(0.5, 0), (0.8, 1)]
    assert [to_hex(line.get_markerfacecolor()) == "#ffffff" for line in marks] == [False, True]
    bars = [list(line.get_xdata()) for line in first.lines if line.get_marker() == "None"]
    assert [0.5, 0.5] in bars and [0.8, 1.6] in bars and [1, 1] in bars  # the quartiles, and the line at 1
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["gluon", "the machine was busy"]


def test_without_times_there_is_nothing_to_draw() -> None:
    with pytest.raises(ValueError, match="no record holds inference or training"):
        bench_report.picture([record_of()])


def test_tables_are_aligned_and_cells_stay_as_they_are() -> None:
    rows = [["name", "ms"], ["a, b", "1.50"], ["", "12"]]
    assert markdown_table(rows).splitlines() == [
        "| name |   ms |",
        "| ---- | ---: |",
        "| a, b | 1.50 |",
        "|      |   12 |",
    ]
    assert terminal_table(rows).splitlines() == ["name    ms", "a, b  1.50", "        12"]


def test_the_short_table_goes_between_its_marks() -> None:
    text = "before\n<!-- bench:rnn -->\nold\n<!-- /bench:rnn -->\nafter\n"
    brief = bench_report.brief(record_of(case_of((64, 64, 2, 50, 16), 0.5)))
    filled = fill(text, "bench:rnn", brief)
    assert filled.startswith("before\n<!-- bench:rnn -->\n| input,") and filled.endswith(
        "|\n<!-- /bench:rnn -->\nafter\n"
    )
    assert "old" not in filled and "0.50" in filled and "/ gluon" in filled
    assert fill(filled, "bench:rnn", brief) == filled
    for wrong in ("", "<!-- /bench:rnn --> <!-- bench:rnn -->", text + text):
        with pytest.raises(ValueError, match="<!-- bench:rnn -->"):
            fill(wrong, "bench:rnn", brief)


def grown(fixed: float, each: float, bend: float = 0.0) -> dict[str, Any]:
    """A record of times on a line, or bent away from it, by steps and layers."""
    points = []
    for case in growth.points():
        seconds = fixed + each * case.length * case.layers + bend * (case.length * case.layers) ** 2
        spread = vars(Spread(seconds, seconds, seconds, 5))
        works = {work: {"first_call": 0.5, "seconds": spread, "memory": 10**7} for work in WORKS}
        points.append({"case": vars(case), "name": case.name, **works})
    return {"date": "2020-01-01", "machine": machine(), "cell": "rnn", "points": points}


def test_each_size_is_varied_alone() -> None:
    cases = growth.points("gru")
    assert len(set(cases)) == len(cases) and {case.cell for case in cases} == {"gru"}
    base = growth.BASE
    for case in cases:
        assert case.input_size == case.hidden_size
        assert sum(getattr(case, axis) != getattr(base, axis) for axis in growth.AXES) <= 1
    spans = {axis: {getattr(case, axis) for case in cases} for axis in growth.AXES}
    assert {axis: (min(span), max(span)) for axis, span in spans.items()} == {
        "length": (1, 2048), "layers": (1, 32), "hidden_size": (32, 2048), "batch_size": (1, 256)
    }  # fmt: skip


def test_times_on_a_line_are_called_linear_and_the_fixed_cost_is_found() -> None:
    verdicts = growth.verdicts(grown(fixed=1e-3, each=1e-4))
    assert [(verdict["axis"], verdict["work"]) for verdict in verdicts] == [
        (axis, work) for axis in ("length", "layers") for work in WORKS
    ]
    steps = verdicts[0]
    assert steps["linear"] and steps["off"] == pytest.approx(0, abs=1e-9)
    assert (steps["fixed"], steps["each"]) == (pytest.approx(1e-3), pytest.approx(2e-4))  # two layers
    assert steps["even_from"] == 32  # at 16 steps the millisecond is 31 % on top, at 32 it is 16 %
    text = growth.report(grown(1e-3, 1e-4))
    assert "linear within 0%: 1 ms a call and 0.2 ms for each of the steps T" in text
    assert "| 2048 " in text


def test_times_that_bend_are_called_not_linear() -> None:
    verdicts = growth.verdicts(grown(fixed=1e-3, each=1e-4, bend=1e-6))
    assert not any(verdict["linear"] for verdict in verdicts if verdict["axis"] == "length")
    assert "not linear: " in growth.report(grown(1e-3, 1e-4, 1e-6))


def test_there_is_no_verdict_where_the_machine_was_busy() -> None:
    record = grown(fixed=1e-3, each=1e-4)
    busy = next(point for point in record["points"] if point["case"]["length"] == 16)
    busy["training"]["seconds"] = {**busy["training"]["seconds"], "high": 1.0}
    assert [verdict["busy"] for verdict in growth.verdicts(record)] == [[], [16], [], []]
    text = growth.report(record)
    assert "forward + backward, steps T: no verdict, the machine was busy at 16." in text and "busy: 4.2" in text


@pytest.mark.usefixtures("_here")
def test_a_point_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "SAMPLE_SECONDS", 1e-4)
    points = [growth.point(Case(8, 8, 2, length, 2)) for length in (4, 64)]
    for work in WORKS:
        assert points[0][work]["seconds"]["median"] > 0 and points[0][work]["first_call"] > 0
    json.dumps(points, allow_nan=False)


def test_growth_is_drawn_by_the_cell_step() -> None:
    record = grown(fixed=1e-3, each=1e-4)
    busy = next(point for point in record["points"] if point["case"]["length"] == 16)
    busy["inference"]["seconds"] = {**busy["inference"]["seconds"], "high": 1.0}
    figure = growth.picture(record)
    panels = np.array(figure.axes).reshape(2, len(growth.AXES))
    assert [panel.get_xlabel() for panel in panels[1]] == [name for name, _ in growth.AXES.values()]
    assert panels[0, 0].get_ylabel() == "time of a cell-step, us"
    assert panels[1, 0].get_ylabel() == "peak memory of a cell-step, kB"
    times = next(line for line in panels[0, 0].lines if len(line.get_xdata()) > 2)
    steps = np.array(growth.AXES["length"][1])
    assert list(times.get_xdata()) == list(steps)
    cells = steps * growth.BASE.layers
    assert list(times.get_ydata()) == pytest.approx(list((1e3 + 1e2 * cells) / cells / growth.BASE.batch_size))
    assert [line.get_xdata()[0] for line in panels[0, 0].lines if line.get_marker() == "x"] == [16]
    assert all(panel.get_xscale() == panel.get_yscale() == "log" for panel in figure.axes)


def test_the_fastest_process_counts_for_each_work(monkeypatch: pytest.MonkeyPatch) -> None:
    one = {"case": {}, "name": "", "inference": {"seconds": {"median": 2}}, "training": {"seconds": {"median": 5}}}
    other = {**one, "inference": {"seconds": {"median": 3}}, "training": {"seconds": {"median": 4}}}
    taken = iter([one, other, one])
    monkeypatch.setattr(growth, "alone", lambda *_: next(taken))
    point = growth.point(Case(8, 8, 2, 4, 2))
    assert [point[work]["seconds"]["median"] for work in WORKS] == [2, 4]


def test_the_books_loop_learns_the_same_and_both_are_timed() -> None:
    sizes = {"vocab_size": 20, "hidden_size": 8, "layers": 2, "seq_len": 5, "batch_size": 4}
    speed = book_loop.language_model_speed("lstm", rounds=2, **sizes)
    ours = {"deeprnn, embedding of 256", "deeprnn, one-hot"}
    assert speed["ratios"].keys() == ours
    assert speed["characters_per_second"].keys() == {*ours, "the book's loop: one-hot, gluon.rnn.LSTM"}
    # Of a character: two LSTM layers and the decoder, three products each, two operations a multiply-add.
    products = 4 * 8 * (256 + 8 + 8 + 8) + 8 * 20
    assert speed["limit"] == pytest.approx(1e11 / (2 * 3 * products))
    json.dumps(speed, allow_nan=False)


def test_a_loop_that_learns_something_else_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book_loop.BookLoop, "_clip_gradients", lambda self: None)
    with pytest.raises(RuntimeError, match="not the same function"):
        book_loop.language_model_speed(vocab_size=20, hidden_size=8, layers=1, seq_len=5, batch_size=4, rounds=1)


@pytest.mark.usefixtures("_here")
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
    assert record["native"].keys() == {"available", "reason", "instruction_set", "threads"}
    assert (record["processes"], record["grid"]) == (3, "main")
    assert len(record["cases"][0]["inference"]["processes"]["gluon"]) == 3
    assert shape_of(image)[1] == 11 * 150  # inches and dots
    assert script.main(["--table", str(file)]) == 0
    assert capsys.readouterr().out == shown


def shape_of(image: Path) -> tuple[int, ...]:
    return tuple(matplotlib.image.imread(image).shape[:2])


def test_a_record_is_completed(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "rnn.json"
    measured: list[tuple[str, Any]] = []
    measure = bench.measure

    def counted(case: Case, contestants: Any, works: Any, rounds: int, **_: Any) -> dict[str, Any]:
        measured.append((case.name, tuple(works)))
        return measure(case, contestants, works, rounds)

    monkeypatch.setattr(bench, "fastest", counted)
    monkeypatch.setattr(clock, "STEADY", math.inf)
    common = ["--contestants", "deeprnn", "gluon", "--rounds", "2", "--json", str(file)]
    one, two = "3,4,1,5,2", "2,3,2,1,1"
    assert script.main([*common, "--cells-of-grid", one, "--work", "inference"]) == 0
    first = json.loads(file.read_text())["cases"][0]["inference"]
    assert script.main([*common, "--cells-of-grid", one, two, "--work", "inference", "training"]) == 0
    assert measured == [(one, ("inference",)), (one, ("training",)), (two, ("inference", "training"))]
    record = json.loads(file.read_text())
    assert [case["name"] for case in record["cases"]] == [one, two]
    assert record["cases"][0]["inference"] == first and "training" in record["cases"][0]

    del measured[:]
    record["cases"][1]["training"]["ratios"]["gluon"]["high"] = 1e9  # as on a busy machine
    file.write_text(json.dumps(record))
    monkeypatch.setattr(clock, "STEADY", 1e6)
    assert script.main([*common, "--cells-of-grid", one, two, "--work", "inference", "training"]) == 0
    assert measured == [(two, ("training",))]

    with pytest.raises(SystemExit) as stopped:
        script.main([*common, "--cell", "gru", "--cells-of-grid", one, "--work", "inference"])
    assert stopped.value.code == 2
    assert (
        "holds other measurements (cell rnn, here gru): name another file, or add --afresh" in capsys.readouterr().err
    )
    assert script.main([*common, "--cell", "gru", "--afresh", "--cells-of-grid", one, "--work", "inference"]) == 0
    assert json.loads(file.read_text())["cell"] == "gru"


def test_a_slower_case_is_profiled_and_a_faster_one_is_not(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = {"8,8,1,1,1": 1.2, "4,4,1,1,1": 0.8}

    def measure(case: Case, *_: Any, **__: Any) -> dict[str, Any]:
        measured = case_of(tuple(map(int, case.name.split(","))), cases[case.name])
        return {key: measured[key] for key in ("case", "name", "inference")}

    monkeypatch.setattr(bench, "fastest", measure)
    monkeypatch.setattr(profiling, "profile", lambda case, work: {"operators": [], "of": [case.name, work]})
    file = tmp_path / "rnn.json"
    assert script.main(["--cells-of-grid", *cases, "--work", "inference", "profile", "--json", str(file)]) == 0
    profiles = [case.get("profile") for case in json.loads(file.read_text())["cases"]]
    assert profiles[0]["inference"]["of"] == ["8,8,1,1,1", "inference"] and not profiles[1]


def test_the_script_measures_growth_and_completes_it(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    all_points = {point["name"]: point for point in grown(1e-3, 1e-4)["points"]}
    asked: list[str] = []
    monkeypatch.setattr(growth, "point", lambda case: asked.append(case.name) or all_points[case.name])
    file, image = tmp_path / "growth.json", tmp_path / "growth.png"
    assert script.main(["--growth", "--json", str(file), "--picture", str(image)]) == 0
    shown = capsys.readouterr().out
    assert "linear within 0%" in shown and shape_of(image) == (6.4 * 150, 13 * 150)
    record = json.loads(file.read_text())
    assert record["verdicts"][0]["linear"]
    first, *_, last = (point["name"] for point in record["points"])
    record["points"][0]["inference"]["seconds"]["high"] = 1e9  # as on a busy machine
    file.write_text(json.dumps({**record, "points": record["points"][:-1]}))
    asked.clear()
    assert script.main(["--growth", "--json", str(file)]) == 0
    assert asked == [first, last]
    assert script.main(["--table", str(file)]) == 0
    assert capsys.readouterr().out == shown * 2


def test_a_table_goes_into_a_readme_and_records_into_one_picture(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = []
    for cell in ("rnn", "gru"):
        files.append(tmp_path / f"{cell}.json")
        files[-1].write_text(json.dumps({**record_of(case_of((64, 64, 2, 50, 16), 0.5)), "cell": cell}))
    readme, image = tmp_path / "README.md", tmp_path / "speed.png"
    readme.write_text("".join(f"<!-- {mark} --><!-- /{mark} -->" for mark in ("bench:gru", "bench:rnn", "growth:rnn")))
    assert script.main(["--table", *map(str, files), "--into", str(readme), "--picture", str(image)]) == 0
    assert readme.read_text().count("64, 64, 2, 50, 16") == 2 and shape_of(image)[1] == 11 * 150
    (tmp_path / "growth.json").write_text(json.dumps(grown(1e-3, 1e-4)))
    assert script.main(["--table", str(tmp_path / "growth.json"), "--into", str(readme)]) == 0
    assert "<!-- growth:rnn -->\n- inference, steps T: linear within 0%" in readme.read_text()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--into", "README.md"], "--into needs --table"),
        (["--cells-of-grid", "256,256,2"], "five sizes"),
        (["--cells-of-grid", "256,256,two,35,32"], "five sizes"),
        (["--cell", "elman"], "invalid choice: 'elman'"),
        (["--rounds", "0"], "--rounds must be at least 1, got 0"),
        (["--processes", "0"], "--processes must be at least 1, got 0"),
        (["--threads", "0"], "--threads must be between 1 and "),
        (["--threads", "4096"], "--threads must be between 1 and "),
        (["--work", "scaling"], "--work scaling compares --threads with one thread"),
        (["--grid", "even"], "invalid choice: 'even'"),
        (["--cell", "gru", "--activation", "relu"], "--activation relu is for --cell rnn"),
        (["--json", "nowhere/rnn.json"], "the folder nowhere of nowhere/rnn.json does not exist"),
        (["--table", "nowhere.json"], "nowhere.json"),
    ],
)
def test_an_invalid_argument_is_reported_in_one_line(
    refusal: Callable[[Sequence[str]], str], arguments: list[str], message: str
) -> None:
    error = refusal(arguments)
    assert message in error and error.startswith("bench.py: error: ")


def test_the_machine_is_named_by_its_kind_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "node", lambda: pytest.fail("asked for the host's name"))
    it = machine()
    assert {"processor", "cores", "instruction_set", "python", "mxnet", "numpy", "deeprnn"} <= it.keys()
    assert it["cores"] >= 1 and it["mxnet"] == "1.9.1"


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"machine": {}, "cell": "rnn"}'])
def test_a_file_that_is_no_record_is_refused(
    refusal: Callable[[Sequence[str]], str], tmp_path: Path, content: str
) -> None:
    file = tmp_path / "other.json"
    file.write_text(content)
    for flag in ("--table", "--json"):
        arguments = [flag, str(file), "--contestants", "deeprnn", "gluon"]
        assert f"{file} is not a record of bench.py" in refusal(arguments)
