"""A study of depth: what is trained, what is not repeated, what a stop and a divergence do, and the record."""

from __future__ import annotations

import json
import math
import re
import sys
import time
from pathlib import Path

import pytest

from deeprnn.cli.options import parse
from deeprnn.config import as_yaml, select
from deeprnn.sampling import Sampler
from tools import jobs, study, study_record
from tools.jobs import Command, side_by_side
from tools.page import page
from tools.repetition import repeated
from tools.study import plan, train_all, write_all
from tools.study_record import epochs_until, record, report, spread

SCRIPT = Path(__file__).parents[2] / "scripts" / "compare.py"
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PAGE = Path(__file__).parents[2] / "docs" / "depth.html"
TEXT = "".join(
    f"{n} little ducks went out one day, over the hills & far <away>; {n * n} came back\n" for n in range(40)
)
TINY = {
    **{"hidden_size": 6, "max_chars": 2000, "split": "0.8,0.1,0.1", "batch_size": 8, "seq_len": 10, "unknown": True},
}

TRAINER = '''
"""Leaves what a training leaves, at once. With 3 layers it diverges, with 4 it fails, 5 it refuses."""
import json, sys
from pathlib import Path

command, *flags = sys.argv[1:]
if command == "generate":
    sys.exit(print("to and fro " * 20))
options = dict(flag[2:].split("=", 1) for flag in flags if "=" in flag)
folder = Path(options["out"])
with open(folder.parent / "calls", "a") as calls:
    print(*sys.argv[1:], file=calls)
layers, seed, epochs = (int(options[name]) for name in ("layers", "seed", "epochs"))
folder.mkdir(exist_ok=True)
rows = [
    {"epoch": e, "train_perplexity": 1 + (10.0 - layers + seed / 10) / e, "valid_perplexity": 9.0, "seconds": 0.5}
    for e in range(1, epochs + 1)
]
rows = rows[:1] if layers in (3, 4) else rows
(folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\\n" for row in rows))
if layers == 3:
    state = {"state": "diverged", "reason": "the loss is nan at step 9 (epoch 2): try a lower --lr"}
    (folder / "state.json").write_text(json.dumps(state))
    sys.exit(print("deeprnn: error: the loss is nan at step 9 (epoch 2): try a lower --lr", file=sys.stderr) or 1)
if layers == 4:
    sys.exit(print("deeprnn: error: No space left on device", file=sys.stderr) or 1)
if layers == 5:
    sys.exit(print("deeprnn: error: --corpus is not what it was", file=sys.stderr) or 2)
summary = {"parameters": 100 * layers, "best_epoch": epochs, "test_loss": 2.0 + seed, "test_perplexity": 8.0 + seed}
(folder / "summary.json").write_text(json.dumps(summary))
'''


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("text") / "ducks.txt"
    path.write_text(TEXT, encoding="utf-8")
    return str(path)


@pytest.fixture()
def trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program in place of deeprnn, which imports nothing of it and so starts in no time."""
    path = tmp_path / "trainer.py"
    path.write_text(TRAINER)
    monkeypatch.setattr(jobs, "PROGRAM", (sys.executable, "-I", str(path)))


def planned(out, text, layers=(1, 2), seeds=2, epochs=4):
    return plan(["book"], layers, seeds, out / "runs", {"corpus": str(text), **TINY}, {"book": epochs})


def calls(out):
    return (out / "runs" / "calls").read_text().splitlines()


# What is trained


def test_each_depth_comes_once_before_a_second_seed_and_deep_ones_first(tmp_path, text):
    runs = planned(tmp_path, text, layers=(1, 4, 2))
    assert [(run.seed, run.layers) for run in runs] == [(0, 4), (0, 2), (0, 1), (1, 4), (1, 2), (1, 1)]
    assert len({run.folder for run in runs}) == 6


def test_all_recipes_read_the_first_ones_text(tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text("residual: true\nepochs: 3\n")
    first, second = plan(["book", str(other)], [2], 1, tmp_path / "runs")
    assert (first.recipe, second.recipe) == ("book", "other")
    assert second.folder.name == "other-2-0"
    assert second.config.model.residual and second.config.train.epochs == 3
    for run in (first, second):
        data = run.config.data
        assert (data.corpus, data.max_chars) == ("jaychou", 10_000)
    assert plan([str(other), "book"], [2], 1, tmp_path / "runs")[1].config.data.max_chars is None


def test_text_is_held_out_unless_another_split_is_asked_for(tmp_path):
    (run,) = plan(["book"], [2], 1, tmp_path)  # which by itself trains on all of its text
    assert run.config.data.split == (0.8, 0.1, 0.1) and run.config.data.unknown
    (run,) = plan(["book"], [2], 1, tmp_path, {"split": "1,0,0"})
    assert run.config.data.split == (1, 0, 0) and not run.config.data.unknown
    (run,) = plan(["book"], [2], 1, tmp_path, {"unknown": False})
    assert run.config.data.split == (0.8, 0.1, 0.1) and not run.config.data.unknown


def test_a_recipe_is_a_preset_or_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"--recipes: there is no file mine\.yaml"):
        plan(["mine.yaml"], [1], 1, tmp_path)
    Path("mine.yaml").write_text("hidden_size: 7\n")
    Path("deep.yaml").write_text("hidden_size: 7\n")
    (run,) = plan(["mine.yaml"], [1], 1, tmp_path)
    assert (run.recipe, run.config.model.hidden_size) == ("mine", 7)
    with pytest.raises(ValueError, match="--recipes has one of them twice: deep, deep"):
        plan(["deep", "deep.yaml"], [1], 1, tmp_path)
    Path("mine.yaml").write_text("hiden_size: 7\n")
    with pytest.raises(ValueError, match=r"mine\.yaml: unknown option 'hiden_size'"):
        plan(["mine.yaml"], [1], 1, tmp_path)


@pytest.mark.usefixtures("trainer")
def test_what_is_over_is_not_done_again_and_what_was_stopped_goes_on(tmp_path, text):
    runs, shown = planned(tmp_path, text), []
    stopped = runs[1].folder
    (stopped / "checkpoints").mkdir(parents=True)
    (stopped / "checkpoints" / "last.json").write_text("{}")
    (stopped / "config.yaml").write_text(as_yaml(runs[1].config.to_mapping()))
    train_all(runs, 2, shown.append)
    assert len(shown) == 4 and shown[-1].startswith("4/4  book, ")
    assert "perplexity 3" in shown[-1] and "after 4 epochs" in shown[-1] and all("left" in line for line in shown[:-1])
    assert [line.endswith("--resume") for line in sorted(calls(tmp_path))].count(True) == 1
    assert next(line for line in calls(tmp_path) if line.endswith("--resume")).count("--layers=1 --seed=0") == 1
    again = planned(tmp_path, text, seeds=3)
    train_all(again, 2, shown.append)
    assert shown[4] == "4 of 6 runs are over already"
    assert len(calls(tmp_path)) == 6


@pytest.mark.usefixtures("trainer")
def test_a_folder_with_a_run_of_other_options_is_refused(tmp_path, text):
    (run,) = planned(tmp_path, text, layers=(1,), seeds=1)
    train_all([run], 1, lambda _: None)
    (run.folder / "config.yaml").write_text(as_yaml(run.config.to_mapping()))
    assert planned(tmp_path, text, layers=(1,), seeds=1) == [run]
    with pytest.raises(ValueError, match="has --epochs 4, and this study 5: choose another --out, or remove"):
        planned(tmp_path, text, layers=(1,), seeds=1, epochs=5)


@pytest.mark.usefixtures("trainer")
def test_a_divergence_is_a_result(tmp_path, text):
    runs, shown = planned(tmp_path, text, layers=(1, 3)), []
    train_all(runs, 2, shown.append)
    assert sum("diverged, the loss is nan at step 9" in line for line in shown) == 2
    train_all(runs, 2, shown.append)
    assert len(calls(tmp_path)) == 4, "it diverged once and would again"
    made = record(runs, 2.0, 50)
    json.dumps(made, allow_nan=False)
    one, three = made["groups"]
    assert (one["diverged"], three["diverged"]) == (0, 2)
    assert three["train"] == {"median": None, "low": None, "high": None}
    assert three["train_at"]["4"]["median"] is None
    assert one["train"]["median"] == pytest.approx(1 + 9.05 / 4)
    diverged = next(line for line in report(made).splitlines() if line.split()[1:2] == ["3"])
    assert diverged.endswith(" 2 of 2") and "infinite" in diverged


@pytest.mark.usefixtures("trainer")
@pytest.mark.parametrize(
    ("layers", "error", "message"),
    [
        (4, RuntimeError, r"book, 4 layers, seed 0: .*No space left on device \(exit code 1; see .*book-4-0.log\)"),
        (5, ValueError, r"book, 5 layers, seed 0: .*--corpus is not what it was \(exit code 2; see .*book-5-0.log\)"),
    ],
)
def test_any_other_failure_ends_the_study(tmp_path, text, layers, error, message):
    with pytest.raises(error, match=message):
        train_all(planned(tmp_path, text, layers=(layers,), seeds=1), 1, lambda _: None)


def test_who_stops_looking_stops_the_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "PROGRAM", (sys.executable, "-c"))
    beat = "import sys, time\nwhile True: open(sys.argv[1], 'a').write('x'); time.sleep(0.02)"
    wait = "import os, sys, time\nwhile not os.path.exists(sys.argv[1]): time.sleep(0.02)"
    log = tmp_path / "log"
    commands = [
        Command((beat, str(tmp_path / "beats")), log, log),
        Command((wait, str(tmp_path / "beats")), log, log),
    ]
    ended = side_by_side(commands, 2)
    assert next(ended) == (1, 0)
    ended.close()
    beats = (tmp_path / "beats").stat().st_size
    time.sleep(0.3)
    assert (tmp_path / "beats").stat().st_size == beats


# The record


@pytest.mark.usefixtures("trainer")
def test_the_record_is_what_the_runs_left(tmp_path, text):
    runs = planned(tmp_path, text, seeds=3, epochs=20)
    train_all(runs, 2, lambda _: None)
    write_all(runs, 220, 2, lambda _: None)
    diagnosis = {
        "epoch": 0,
        "layers": [{"number": 2, "gradient": 1.0}, {"number": 1, "gradient": 0.1}],
        "sentences": [],
    }
    (runs[0].folder / "diagnosis.jsonl").write_text(json.dumps(diagnosis) + "\n")
    made = record(runs, 1.5, 220, command="again")
    json.dumps(made, allow_nan=False)
    assert made["corpus"]["name"] == "ducks.txt" and made["corpus"]["symbols"]["train"] == 1600
    assert made["corpus"]["repeated"] == repeated(TEXT[:220])
    assert [run["seed"] for run in made["runs"]] == [0, 1, 2, 0, 1, 2]
    assert text not in json.dumps(made), "a path of this machine"
    one, two = made["groups"]
    assert (one["layers"], two["layers"], two["parameters"], two["epochs"]) == (1, 2, 200, 20)
    assert set(one["train_at"]) == {"5", "10", "20"}
    expected = sorted(1 + (8 + seed / 10) / 20 for seed in range(3))
    assert two["train"] == pytest.approx(dict(zip(("low", "median", "high"), expected)))
    # 1 + 8 / e <= 1.5 first at e = 16, 1 + 8.1 / e at 17, 1 + 8.2 / e at 17; an epoch takes half a second.
    assert two["epochs_to"] == {"median": 17, "low": 16, "high": 17}
    assert two["seconds_to"] == {"median": 8.5, "low": 8, "high": 8.5}
    assert two["test_loss"] == {"median": 3.0, "low": 2.0, "high": 4.0}
    assert two["diagnosis"] == [{"epoch": 0, "gradient": [0.1, 1.0], "sentences": []}] and one["diagnosis"] == []
    assert [text["way"] for text in one["texts"]] == list(study.WAYS)
    measured = one["texts"][0]
    assert measured["text"] == "to and fro " * 20 and measured["characters"] == 220
    assert measured["repeated"] == pytest.approx(1 - 11 / 201) and measured["copied"] == 0 and measured["longest"] >= 2
    unquoted = record(runs, 1.5, 220, samples=False)
    assert "text" not in unquoted["groups"][0]["texts"][0] and unquoted["groups"][0]["texts"][0]["repeated"] > 0.9


@pytest.mark.usefixtures("trainer")
def test_the_record_reads_the_text_in_its_encoding(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text("床前明月光，疑是地上霜。\n" * 200, encoding="gb18030")
    runs = plan(["book"], [1], 1, tmp_path / "runs", {"corpus": str(path), "encoding": "gb18030", **TINY}, {"book": 2})
    train_all(runs, 1, print)
    assert record(runs, 2.0, 50)["corpus"]["vocabulary"] == 14  # 13 symbols and the unknown one


def test_a_perplexity_never_reached():
    assert epochs_until({"train": [3.0, None, 2.0], "seconds_by_epoch": [1, 1, 1]}, 1.5) == (None, None)
    assert spread([1.0, None, 3.0]) == {"median": 3.0, "low": 1.0, "high": None}
    assert spread([None, 2.0, None])["median"] is None


# The command


def test_the_ways_of_writing_are_flags_of_generate_and_differ():
    ways = [vars(parse(["generate", "runs/book-1-0", *flags])["generate"]) for flags in study.WAYS.values()]
    assert len({select(Sampler, way) for way in ways}) == len(study.WAYS) == 4


def test_the_script_trains_writes_and_reports(script, tmp_path, text, capsys, monkeypatch):
    """With the program itself; one way of writing, as each takes a process."""
    for module in (study, study_record):
        monkeypatch.setattr(module, "WAYS", {"greedy": study.WAYS["greedy"]})
    flags = ["--layers", "1", "--recipes", "book", "--seeds", "1", "--corpus", text, "--max-chars", "2000"]
    flags += ["--set", "hidden_size=6", "--epochs", "2", "--no-diagnose", "--sample-length", "60", "--jobs", "2"]
    flags += ["--out", str(tmp_path / "runs"), "--json", str(tmp_path / "s.json"), "--html", str(tmp_path / "s.html")]
    assert script.main(["depth", *flags]) == 0
    shown = capsys.readouterr().out
    assert "1/1  book" in shown and "text 1/1  book, 1 layer, seed 0: greedy" in shown
    made = json.loads((tmp_path / "s.json").read_text())
    assert shown.endswith(report(made))
    assert all(math.isfinite(group["train"]["median"]) for group in made["groups"])
    assert made["command"].startswith("python scripts/compare.py depth --layers 1 --recipes book ")
    assert str(tmp_path) not in str(made)
    assert (tmp_path / "s.html").read_text().startswith("<!DOCTYPE html>")
    assert script.main(["depth", *flags, "--report-only"]) == 0


@pytest.mark.usefixtures("trainer")
def test_a_study_writes_no_texts_unless_asked_to(script, tmp_path, text, capsys, monkeypatch):
    monkeypatch.setattr(study, "write_all", lambda *_: pytest.fail("texts"))
    flags = ["--layers", "1", "--seeds", "1", "--corpus", text, "--max-chars", "2000", "--set", "hidden_size=6"]
    flags += ["--epochs", "1", "--no-diagnose", "--out", str(tmp_path / "runs"), "--json", str(tmp_path / "s.json")]
    assert script.main(["depth", *flags]) == 0
    assert "valid perplexity" in capsys.readouterr().out
    made = json.loads((tmp_path / "s.json").read_text())
    assert made["groups"][0]["texts"] == [] and made["corpus"]["symbols"]["test"] == 200
    assert "What they write" not in page(made)


def test_a_page_is_made_again_from_records_alone(script, tmp_path, capsys):
    records = [str(BENCHMARKS / f"depth_{name}.json") for name in ("timemachine", "tinyshakespeare")]
    assert script.main(["depth", "--page", *records, "--out", str(tmp_path / "page.html")]) == 0
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    command = f"scripts/compare.py depth --page {' '.join(records)} --out docs/depth.html"
    assert with_empty_drawings(html) == with_empty_drawings(PAGE.read_text(encoding="utf-8")), command
    assert capsys.readouterr().out == ""


def with_empty_drawings(html):
    """The page with empty drawings: another version of matplotlib draws the same a little differently."""
    return re.sub("<svg.*?</svg>", "<svg>", html, flags=re.DOTALL)


def test_a_page_is_made_of_records_of_studies_only(refusal, tmp_path):
    file = tmp_path / "other.json"
    for content in ("{", "[]", '{"groups": []}'):
        file.write_text(content)
        assert f"{file} is not a record of compare.py depth" in refusal(["depth", "--page", str(file), "--out", "x"])
    assert "--page needs --out" in refusal(["depth", "--page", str(file)])


def test_ctrl_c_stops_the_runs_and_names_the_way_to_continue(interrupted, tmp_path, text):
    flags = ["--layers", "1", "--seeds", "1", "--corpus", text, "--max-chars", "2000", "--set", "hidden_size=6"]
    flags += ["--epochs", "100000", "--no-diagnose", "--out", str(tmp_path / "runs")]
    metrics = tmp_path / "runs" / "book-1-0" / "metrics.jsonl"

    def trains(_):
        for _ in range(600):
            if metrics.exists():
                break
            time.sleep(0.1)

    code, error = interrupted(str(SCRIPT), "depth", *flags, ready=trains, within=60)
    assert code == 130
    assert error == "interrupted; 0 of 1 runs are over; the same command continues\n"
    size = metrics.stat().st_size
    time.sleep(0.5)
    assert metrics.stat().st_size == size


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layers", "1,two"], "--layers must be whole numbers, got 'two'"),
        (["--layers", "0"], "--layers must be at least 1, got 0"),
        (["--layers", "2,2"], "--layers has one of them twice"),
        (["--recipes", "boook"], "--recipes must be one of"),
        (["--seeds", "0"], "--seeds must be at least 1, got 0"),
        (["--epochs", "deep=3"], "--epochs must be one of 'book', got 'deep'"),
        (["--epochs", "many"], "--epochs must be whole numbers, got 'many'"),
        (["--perplexity", "1"], "--perplexity must be above 1, got 1"),
        (["--set", "hidden_size"], "--set must be NAME=VALUE"),
        (["--set", "hiden_size=3"], "unknown option 'hiden_size' (did you mean 'hidden_size'?)"),
        (["--set", "hidden_size=-3"], "--hidden-size must be at least 1, got -3"),
        (["--split", "1,1"], "--split must be three shares"),
        (["--html", "nowhere/page.html"], "the folder nowhere of nowhere/page.html does not exist"),
        (["--samples", "some"], "invalid choice: 'some'"),
        (["--recipes", "book,mine.yaml"], "--recipes: there is no file mine.yaml"),
        (["--page", "nowhere.json"], "nowhere.json"),
    ],
)
def test_an_invalid_argument_is_reported_in_one_line(refusal, tmp_path, arguments, message):
    assert message in refusal(["depth", "--out", str(tmp_path), "--no-diagnose", *arguments])
