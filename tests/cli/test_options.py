"""The flags, and the run that they describe together with presets and files."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields

import pytest
import yaml
from commands import PROJECT, resolved

from deeprnn.cli.main import main
from deeprnn.cli.options import COMMANDS, in_flags, parse
from deeprnn.config import ModelConfig, RunConfig, presets, read_options
from tools.arguments import Parser

ISSUED = shlex.split("""
--layers --hidden-size --embedding-size --cell --activation --dropout --init --corpus --max-chars --split --unit
--batch-size --seq-len --sampling --epochs --sample-every --optimizer --lr --schedule --clip --seed --threads --ctx
--out --resume --init-from --config --preset --backend --version
""")


def test_help_names_every_flag(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["train", "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    flags = re.findall(r"^  (?:-h, )?(--[a-z-]+)", shown, flags=re.MULTILINE)
    assert set(ISSUED) <= set(flags)
    for block in re.split(r"^  (?=--)", shown, flags=re.MULTILINE)[1:]:
        assert re.search(r"\s{2,}[A-Z0-9a-z].*[a-z]{2}", block), f"no help: {block}"


def test_defaults_then_preset_then_config_then_flags(tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text("epochs: 7\nlayers: 3\nlr: 1e-3\n")
    expected = RunConfig.from_mapping(
        {**yaml.safe_load((PROJECT / "configs" / "book.yaml").read_text()), "epochs": 7, "lr": 1e-3, "layers": 4}
    )
    orders = [
        ["--preset", "book", "--config", str(config), "--layers", "4"],
        ["--layers", "4", "--config", str(config), "--preset", "book"],
        ["--config", str(config), "--layers", "4", "--preset=book"],
    ]
    for order in orders:
        run = resolved(*order)
        assert {**run.to_mapping(), "out": None} == expected.to_mapping()


def test_nothing_given_is_the_defaults():
    run = resolved()
    assert {**run.to_mapping(), "out": None} == RunConfig().to_mapping()
    assert re.fullmatch(r"runs/pydoc-rnn-2x256-\d{8}-\d{6}", run.out)


@pytest.mark.parametrize(
    "corpus, name", [("timemachine", "timemachine"), ("a/b c.txt.gz", "b-c"), ("诗.txt", "诗"), (".txt", "text")]
)
def test_name_of_the_folder(corpus, name):
    assert resolved("--corpus", corpus).out.startswith(f"runs/{name}-rnn-2x256-")


@pytest.mark.parametrize(
    "arguments, name, value",
    [
        (["--split", "1,0,0"], "split", [1, 0, 0]),
        (["--split=0.5,0.25,0.25"], "split", [0.5, 0.25, 0.25]),
        (["--unknown", "false"], "unknown", False),
        (["--sample-greedy"], "sample_greedy", True),
        (["--sample-greedy", "--layers", "3"], "layers", 3),
        (["--max-chars", "10"], "max_chars", 10),
        (["--corpus", "123"], "corpus", "123"),
        (["--sample-prefix", "The |[1, 2]: x"], "sample_prefix", "The |[1, 2]: x"),
        (["--lr", "100"], "lr", 100),
        (["--lr", "1e-3"], "lr", 1e-3),
    ],
)
def test_spellings(arguments, name, value):
    assert resolved(*arguments).to_mapping()[name] == value


@pytest.mark.parametrize("name", presets())
def test_presets_are_runs_and_say_why(name):
    path = PROJECT / "configs" / f"{name}.yaml"
    assert path.read_text(encoding="utf-8").startswith("# ")
    assert read_options(path)


def test_the_book_to_the_letter():
    run = resolved("--preset", "book").to_mapping()
    protocol = {
        "corpus": "jaychou",
        "max_chars": 10_000,
        "split": [1, 0, 0],
        "unit": "char",
        "unknown": False,
        "batch_size": 32,
        "seq_len": 35,
        "sampling": "consecutive",
        "cell": "rnn",
        "layers": 1,
        "hidden_size": 256,
        "embedding_size": 0,
        "activation": "tanh",
        "dropout": 0,
        "residual": False,
        "layer_norm": False,
        "zoneout": 0,
        "tied": False,
        "init": "normal",
        "epochs": 250,
        "optimizer": "sgd",
        "lr": 100,
        "schedule": "constant",
        "warmup": 0,
        "clip": 0.01,
        "patience": 0,
        "sample_every": 50,
        "sample_length": 50,
        "sample_prefix": "分开|不分开",
        "sample_greedy": True,
    }
    assert {name: run[name] for name in protocol} == protocol
    assert resolved("--layers", "2", "--preset", "book").model.layers == 2
    shown = read_options(PROJECT / "configs" / "book.yaml")
    assert {field.name for field in fields(ModelConfig)} - set(shown) == {"backend", "plugin"}, (
        "these are not the book's"
    )


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_has_no_types_and_no_markup(command, capsys):
    with pytest.raises(SystemExit):
        main([*command.split(), "--help"])
    shown = capsys.readouterr().out
    for noise in (
        "type:",
        "<class",
        "Optional",
        "Literal",
        "`",
        "**",
        "null",
        "(required)",
        "show this",
        "{true,false}])",
    ):
        assert noise not in shown
    assert re.search("Show this help message and exit", shown)
    for name in (field.name for parts in COMMANDS.values() for part in parts for field in fields(part)):
        assert "_" not in name or name not in shown, f"{name} instead of a flag"
    for block in re.split(r"^  (?=--)", shown, flags=re.MULTILINE)[1:]:
        sentence = " ".join(block.split("\n\n")[0].split())
        assert re.search(r"[.)]$", sentence), f"no sentence: {sentence}"


@pytest.mark.parametrize(
    "message, shown",
    [
        ("layers must be at least 1, got 0", "--layers must be at least 1, got 0"),
        ("hidden_size must be at least 1", "--hidden-size must be at least 1"),
        ("corpus a.txt: the file is empty", "--corpus a.txt: the file is empty"),
        ("the text of layers, data and seed", "the text of layers, data and seed"),
        ("backend='gluon' has no residual=True; use residual=False", None),
        ("resume: the run in out has split=1,0,0", "--resume: the run in out has --split 1,0,0"),
        ("batch_size=8 and seq_len=10 need 88 symbols", "--batch-size 8 and --seq-len 10 need 88 symbols"),
        ("train on the whole text (split=1,0,0)", "train on the whole text (--split 1,0,0)"),
        ("a/hidden_size.txt and hidden_size.txt", "a/hidden_size.txt and hidden_size.txt"),
        ("out a=b holds a run; use max_chars=None", "--out a=b holds a run; use --max-chars null"),
        ("try lr=0.005, or clip=1.", "try --lr 0.005, or --clip 1."),
        ("--lr 1 stays --lr 1", "--lr 1 stays --lr 1"),
    ],
)
def test_the_library_names_arguments_and_the_command_line_flags(message, shown):
    expected = "--backend gluon has no --residual true; use --residual false" if shown is None else shown
    assert in_flags(message) == expected


def test_no_module_of_the_library_names_a_flag():
    """The command line translates in one place."""
    package = PROJECT / "src" / "deeprnn"
    for path in package.rglob("*.py"):
        if "cli" not in path.parts and path.name != "arguments.py":
            found = re.findall(r"(?<![\w<!-])--[a-z][a-z-]+", path.read_text(encoding="utf-8"))
            allowed = {"--hidden-size", "--max-chars"} if path.name == "fields.py" else set()
            assert not set(found) - allowed, f"{path}: {found}"


def test_the_other_scripts_speak_the_same_dialect(capsys):
    parser = Parser(prog="x.py")
    parser.add_argument("--layers", type=int, default=2, help="recurrent layers (default %(default)s)")
    parser.add_argument("--share", default="80", help="at 80 %% of `the` size, or %(default)s")
    parser.add_argument("--fast", action="store_true", help="be fast")
    parser.add_argument("--json", metavar="FILE", help="Write all numbers there.")
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    shown = capsys.readouterr().out
    for line in (
        "-h, --help     Show this help message and exit.",
        "--layers N     Recurrent layers. (default: 2)",
        "--share SHARE  At 80 % of the size, or 80. (default: 80)",
        "--fast         Be fast.",
        "--json FILE    Write all numbers there.",
    ):
        assert f"  {line}\n" in shown


def test_the_other_scripts_translate_arguments(capsys):
    parser = Parser(prog="x.py")
    parser.add_argument("--hidden-size")
    parser.add_argument("--cell")

    def work():
        raise ValueError("activation='relu' is for cell='rnn', and hidden_size must be")

    with pytest.raises(SystemExit) as ended:
        parser.call(work)
    assert ended.value.code == 2
    error = "x.py: error: activation='relu' is for --cell rnn, and --hidden-size must be\n"
    assert capsys.readouterr().err == error


@pytest.mark.parametrize("value", ["#3", "~", "null", "# a note", "yes", "1e3"])
def test_an_optional_text_is_taken_as_it_is_given(value):
    assert parse(["generate", "run", "--stop", value]).generate.stop == value
    assert parse(["train", "--out", value]).train.out == value


@pytest.mark.parametrize(
    "line", ["train --config", "train --preset", "train --out", "train --init-from", "evaluate run --corpus"]
)
def test_an_empty_name_is_refused(line):
    with pytest.raises(ValueError, match="must not be empty"):
        parse([*line.split(), ""])


@pytest.mark.parametrize("flag", ["layers", "hidden-size", "sample-length", "lr", "threads", "seed"])
@pytest.mark.parametrize("digits", [40, 400])
def test_a_number_that_is_too_large_is_one_line(flag, digits, capsys):
    assert main(["train", f"--{flag}", "9" * digits]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_memory_that_mxnet_does_not_get_is_one_line(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("over the hills " * 100)
    sizes = ["--corpus", str(tmp_path / "a.txt"), "--hidden-size", "3000000", "--out", str(tmp_path / "run")]
    assert main(["train", *sizes]) == 1
    assert re.fullmatch("deeprnn: error: (out of memory: |MXNet: ).*\n", capsys.readouterr().err)
