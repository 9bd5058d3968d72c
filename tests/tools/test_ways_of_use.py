"""Benchmarks of use: several processes and threads, the ways to use a layer, changing lengths, the record's header."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from deeprnn._util.machine import machine
from tools import bench, bench_report, clock, lengths, native, processes, usage
from tools.contestants import WORKS, Case

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench.py"

needs_affinity = pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity on this system")


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "SAMPLE_SECONDS", 1e-4)
    monkeypatch.setattr(bench, "sgemm_rate", lambda: 1e11)
    for module in (bench, lengths, usage):
        monkeypatch.setattr(module, "alone", lambda function, *args, threads=None: function(*args))


# Several processes


def spread(median: float, high: float = 0.0) -> dict[str, Any]:
    return {"median": median, "low": median, "high": high or median, "count": 9}


def process(ours: float, gluon: float, torch: float, flops: float = 1e9, high: float = 0.0) -> dict[str, Any]:
    case = Case(256, 256, 2, 35, 32)
    times = {"deeprnn": ours, "gluon": gluon, "pytorch": torch}
    work = {
        "seconds": {name: spread(seconds) for name, seconds in times.items()},
        "ratios": {name: spread(ours / times[name], high) for name in ("gluon", "pytorch")},
        "tries": 1,
        "rates": {"flops": flops, "bytes": 1e30},
        "limit": 1.0,
    }
    return {"case": vars(case), "name": case.name, "differences": {"deeprnn": ours * 1e-6}, "training": work}


def test_of_several_processes_the_fastest_counts_pair_by_pair() -> None:
    tries = [process(2.0, 3.0, 9.0), process(2.5, 2.4, 9.0, flops=2e9), process(2.6, 9.0, 4.0)]
    best = bench.fastest_of(tries)
    training = best["training"]
    assert [training["seconds"][name]["median"] for name in ("deeprnn", "gluon", "pytorch")] == [2.0, 2.4, 4.0]
    assert training["ratios"]["gluon"]["median"] == 2.5 / 2.4  # the smallest sum, within one process
    assert training["ratios"]["pytorch"]["median"] == 2.6 / 4.0
    assert training["processes"]["gluon"] == [2.0 / 3.0, 2.5 / 2.4, 2.6 / 9.0]
    assert training["tries"] == 3 and training["rates"]["flops"] == 2e9
    assert training["limit"] == Case(**best["case"]).limit("training", 2e9, 1e30)
    assert best["differences"]["deeprnn"] == 2.6e-6 and "inference" not in best
    json.dumps(best)


def test_a_steady_process_goes_before_a_faster_one_on_a_busy_machine() -> None:
    tries = [process(1.0, 1.0, 1.0, high=9.0), process(2.0, 4.0, 4.0)]
    assert bench.fastest_of(tries)["training"]["ratios"]["gluon"]["median"] == 0.5
    assert bench.busy(bench.fastest_of(tries[:1])["training"]) and not bench.busy(bench.fastest_of(tries)["training"])


def test_a_case_is_measured_in_so_many_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(bench, "alone", lambda *args, threads: asked.append((args[2:], threads)) or process(1, 2, 3))
    bench.fastest(Case(2, 2, 1, 2, 1), ("deeprnn", "gluon"), ("training",), 7, processes=4, threads=2)
    assert asked == [((("deeprnn", "gluon"), ("training",), 7), 2)] * 4


# Threads


def state_of_process() -> tuple[str, int]:
    return os.environ["OMP_NUM_THREADS"], len(os.sched_getaffinity(0))


@needs_affinity
def test_a_process_has_the_threads_and_cores_it_is_given() -> None:
    cores = os.sched_getaffinity(0)
    before = os.environ.get("OMP_NUM_THREADS")
    assert processes.alone(state_of_process, threads=1) == ("1", 1)
    if len(cores) > 1:
        assert processes.alone(state_of_process, threads=2) == ("2", 2)
    assert os.sched_getaffinity(0) == cores and os.environ.get("OMP_NUM_THREADS") == before
    with pytest.raises(ValueError, match=f"--threads must be between 1 and {len(cores)}, the cores of this process"):
        processes.alone(state_of_process, threads=len(cores) + 1)


def test_scaling_is_the_fastest_with_one_thread_over_the_fastest_with_several(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {1: iter([4.0, 3.0]), 2: iter([2.0, 2.5])}
    asked: list[int] = []

    def alone(function: Any, *args: Any, threads: int) -> dict[str, float]:
        asked.append(threads)
        taken = next(seconds[threads])
        return {"inference": taken, "training": 2 * taken, "product": taken}

    monkeypatch.setattr(bench, "alone", alone)
    found = bench.scaling(Case(256, 256, 2, 35, 32), threads=2, processes=2)
    assert asked == [1, 2, 1, 2]
    assert found["training"] == {"one": 6.0, "several": 4.0, "times_as_fast": 1.5}
    text = bench_report.report({**header(), "cases": [{"name": "256,256", "scaling": found}]})
    assert "2 threads over one: times as fast" in text and "1.50" in text


def header(**more: Any) -> dict[str, Any]:
    return {"date": "2020-01-01", "machine": machine(), "cell": "lstm", **more}


# The ways to use a layer


def small(place: str, mode: str, arrays: str = "nd") -> usage.Use:
    return usage.Use(place, mode, 5, 2, "lstm", layers=2, length=4, arrays=arrays)


@pytest.mark.parametrize("place", usage.PLACES)
@pytest.mark.parametrize("mode", usage.MODES)
@pytest.mark.parametrize("arrays", ["nd", "np"])
@pytest.mark.filterwarnings("ignore:ndarray.* has been renamed:DeprecationWarning")  # in the built-in layer
def test_every_way_is_measured_or_refused(place: str, mode: str, arrays: str) -> None:
    (record,) = usage.measure_group([small(place, mode, arrays)], rounds=2)
    assert record["name"].startswith(f"{place}, {mode}{', np' * (arrays == 'np')}: ") and record["arrays"] == arrays
    assert (record["place"], record["mode"], record["units"], record["batch_size"]) == (place, mode, 5, 2)
    if "refused" in record:
        assert record["refused"].keys() == {"deeprnn"} and ": " in record["refused"]["deeprnn"]
    else:
        assert record["difference"] < 1e-5
        for work in WORKS:
            assert record[work]["seconds"].keys() == {"deeprnn", "gluon"} and record[work]["ratio"]["median"] > 0
    json.dumps(record, allow_nan=False)


def test_what_raises_is_recorded_as_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: Any, **__: Any) -> None:
        raise TypeError("not like this\nbut like that")

    monkeypatch.setattr(usage._Used, "training", refuses)
    (record,) = usage.measure_group([small("by itself", "eager")])
    assert record["refused"] == {name: "TypeError: not like this" for name in ("deeprnn", "gluon")}
    assert not {"inference", "training", "difference"} & record.keys()


def test_what_is_another_function_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "copy_in_order", lambda *_: None)
    (record,) = usage.measure_group([small("by itself", "eager")])
    assert record["difference"] > 1e-3 and not {"inference", "training"} & record.keys()
    table = bench_report.report(header(cases=[], usage=[record]))
    assert "not the same function" in table


def test_the_uses_are_those_that_people_have() -> None:
    groups = usage.groups("gru")
    assert len(groups) == 2 * len(usage.PLACES) * len(usage.MODES)
    for group in groups:
        assert len({use.way for use in group}) == 1
        sizes = {(use.units, use.batch_size) for use in group}
        batches = {8, 32} if group[0].mode == "eager" else {1, 16, 64}
        if group[0].arrays == "nd":
            assert sizes == {(units, batch) for units in (64, 200, 256, 650) for batch in batches}
        else:
            assert sizes == {(units, 8 if group[0].mode == "eager" else 16) for units in (64, 200, 650)}
    assert {use.cell for group in groups for use in group} == {"gru"}
    assert [len(group) for group in usage.groups("gru", smallest=True)] == [1] * len(groups)


def use_of(ratio: float, units: int, **more: Any) -> dict[str, Any]:
    use = replace(small("by itself", "eager"), units=units)
    works = {work: {"seconds": {}, "ratio": spread(ratio)} for work in WORKS}
    return {**vars(use), "name": use.name, **({} if more else works), **more}


def test_the_worst_of_each_way_is_shown_with_its_size() -> None:
    uses = [use_of(0.9, 64), use_of(1.7, 200), use_of(0, 256, refused={"deeprnn": "ValueError: no"})]
    (row,) = usage.summary(uses)
    assert (row["way"], row["count"], row["refused"]) == ("by itself, eager", 3, 1)
    assert row["training"] == {"ratio": 1.7, "units": 200, "batch_size": 2}
    record = header(cases=[], usage=uses)
    section = bench_report.sections(record)["usage:lstm"]
    assert "| by itself, eager |" in section and "1.70 (200 units, batch 2)" in section
    assert "deeprnn refuses" in bench_report.report(record)


# Changing lengths


@pytest.mark.parametrize("mode", ["eager", "static_alloc"])
def test_each_length_comes_once_in_a_round(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds: list[list[int]] = []
    take = lengths._round

    def noted(calls: Any, order: Any) -> Any:
        rounds.append(list(order))
        return take(calls, order)

    monkeypatch.setattr(lengths, "_round", noted)
    case = Case(3, 4, 1, 9, 1, cell="lstm", bidirectional=True)
    record = lengths.measure_lengths(mode, 2, case=case, count=5)
    assert (record["mode"], record["batch_size"], record["count"]) == (mode, 2, 5)
    assert len(rounds) == 4 and all(sorted(order) == sorted(rounds[0]) for order in rounds)
    assert rounds[0] != rounds[1] and len(set(rounds[0])) == 5 and max(rounds[0]) <= 9
    for work in WORKS:
        for name in ("first", "second"):
            measured = record[work][name]
            assert measured["ratio"] == measured["seconds"]["deeprnn"] / measured["seconds"]["gluon"]
    table = bench_report.sections(header(cases=[], lengths=[record]))["lengths:lstm"]
    assert f"| batch 2, {mode} " in table and "training" not in table and "second round" in table
    json.dumps(record, allow_nan=False)


def test_the_sizes_of_the_benchmark_of_lengths() -> None:
    assert (lengths.CASE.hidden_size, lengths.CASE.length, lengths.CASE.bidirectional) == (128, 120, True)
    assert lengths.COUNT == 100 and lengths.BATCH_SIZES == (1, 16)


# The record's header


def test_the_native_operator_is_in_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    status = SimpleNamespace(available=True, reason="", instruction_set="avx2", threads=2)
    monkeypatch.setitem(sys.modules, "deeprnn.native", SimpleNamespace(status=lambda: status))  # type: ignore[misc]
    found = native.native_status()
    assert found == {"available": True, "reason": None, "instruction_set": "avx2", "threads": 2}
    assert "native operator (avx2)" in bench_report.where(header(native=found))
    monkeypatch.setitem(sys.modules, "deeprnn.native", SimpleNamespace())  # type: ignore[misc]
    monkeypatch.setattr(native, "HOMES", ("deeprnn.native", "deeprnn.nowhere"))
    found = native.native_status()
    assert not found["available"] and "no native operator" in found["reason"]
    assert "no native operator" in bench_report.where(header(native=found))


def test_the_script_measures_uses_and_lengths_and_completes_the_record(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    uses = [[small("by itself", "eager")], [small("in a Block", "eager")]]
    monkeypatch.setattr(usage, "groups", lambda cell, smallest: uses)
    monkeypatch.setattr(lengths, "CASE", Case(3, 4, 1, 9, 1, cell="lstm", bidirectional=True))
    monkeypatch.setattr(lengths, "BATCH_SIZES", (1,))
    file = tmp_path / "usage.json"
    arguments = ["--cell", "lstm", "--quick", "--rounds", "2", "--json", str(file)]
    assert script.main([*arguments, "--work", "usage", "lengths"]) == 0
    shown = capsys.readouterr().out
    record = json.loads(file.read_text())
    assert record["cases"] == [] and len(record["usage"]) == 2 and len(record["lengths"]) == len(usage.MODES)
    assert "how it is used" in shown and "lengths up to 9" in shown
    record["usage"].pop()
    file.write_text(json.dumps(record))
    measured: list[str] = []
    monkeypatch.setattr(
        usage, "measure_group", lambda uses, *_: measured.extend(use.name for use in uses) or [use_of(1.0, 5)]
    )
    assert script.main([*arguments, "--work", "usage", "lengths"]) == 0
    assert measured == ["in a Block, eager: 5 units, batch 2"]
