"""What a run is: one dataclass field an option, checked when it is made, there and back as flat options."""

import dataclasses
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import docstring_parser
import pytest
import yaml

from deeprnn.config import (
    CELLS,
    DataConfig,
    ModelConfig,
    OptionsFileError,
    RunConfig,
    Split,
    TrainConfig,
    as_yaml,
    origin,
    read_options,
    resolve,
)

PARTS = [DataConfig, ModelConfig, TrainConfig]
PROJECT = Path(__file__).parent.parent


def test_there_and_back():
    options = {"out": "runs/a", "layers": 4, "lr": 1, "split": "1,0,0", "cell": "gru", "max_chars": 10}
    run = RunConfig.from_mapping(options)
    assert run.model == ModelConfig(layers=4, cell="gru")
    assert run.data == DataConfig(split=Split(1, 0, 0), max_chars=10)
    assert run.train == TrainConfig(lr=1)
    options = run.to_mapping()
    assert options["split"] == [1, 0, 0]
    assert RunConfig.from_mapping(options) == run
    assert RunConfig.from_mapping(yaml.safe_load(yaml.safe_dump(options))) == run


def test_a_name_belongs_to_one_part():
    names = [field.name for part in PARTS for field in dataclasses.fields(part)]
    assert sorted({*names, "out"}) == sorted([*names, "out"]) == sorted(RunConfig().to_mapping())


@pytest.mark.parametrize("part", [*PARTS, RunConfig])
def test_every_option_is_described(part):
    described = {param.arg_name for param in docstring_parser.parse(part.__doc__).params if param.description}
    assert described | {"data", "model", "train"} >= {field.name for field in dataclasses.fields(part)}
    assert not described - {field.name for field in dataclasses.fields(part)}


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"layers": 0}, "layers must be at least 1, got 0"),
        ({"layers": -1}, "layers must be at least 1, got -1"),
        ({"layers": 2.0}, "layers must be a whole number, got 2.0"),
        ({"layers": "2"}, "layers must be a whole number, got '2'"),
        ({"layers": True}, "layers must be a whole number, got True"),
        ({"layers": None}, "layers must be a whole number, got None"),
        ({"hidden_size": 0}, "hidden_size must be at least 1, got 0"),
        ({"embedding_size": -1}, "embedding_size must be at least 0, got -1"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"seq_len": 0}, "seq_len must be at least 1, got 0"),
        ({"max_chars": 0}, "max_chars must be at least 1, got 0"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"sample_length": 0}, "sample_length must be at least 1, got 0"),
        ({"sample_every": -1}, "sample_every must be at least 0, got -1"),
        ({"warmup": -1}, "warmup must be at least 0, got -1"),
        ({"patience": -1}, "patience must be at least 0, got -1"),
        ({"threads": -1}, "threads must be at least 0, got -1"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"seed": 2**31}, "seed must be below 2147483648, got 2147483648"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1, got 1.0"),
        ({"dropout": -0.1}, "dropout must be at least 0 and below 1, got -0.1"),
        ({"lr": 0}, "lr must be above 0, got 0"),
        ({"lr": float("nan")}, "lr must be a finite number, got nan"),
        ({"lr": "fast"}, "lr must be a finite number, got 'fast'"),
        ({"lr": True}, "lr must be a finite number, got True"),
        ({"clip": -1.0}, "clip must be at least 0, got -1.0"),
        ({"clip": float("inf")}, "clip must be a finite number, got inf"),
        ({"cell": "rnnn"}, "cell must be one of 'rnn', 'gru', 'lstm', got 'rnnn'; did you mean 'rnn'?"),
        ({"activation": "sigmoid"}, "activation must be one of 'tanh', 'relu', got 'sigmoid'"),
        ({"activation": ["tanh"]}, "activation must be one of 'tanh', 'relu', got ['tanh']"),
        ({"cell": "lstm", "activation": "relu"}, "activation='relu' is for cell='rnn'; lstm has its own"),
        ({"backend": "gluon", "residual": False, "dropout": 0.5}, "backend='gluon' ignores dropout=0.5 on the CPU"),
        ({"zoneout": 1}, "zoneout must be at least 0 and below 1, got 1"),
        (
            {"tied": True, "embedding_size": 8},
            "tied=True needs embedding and hidden layers of one size, got embedding_size=8 and hidden_size=256",
        ),
        ({"backend": "gluon"}, "backend='gluon' has no residual=True; use residual=False"),
        ({"backend": "gluon", "residual": False, "layer_norm": True}, "backend='gluon' has no layer_norm=True"),
        ({"backend": "gluon", "residual": False, "zoneout": 0.1}, "backend='gluon' has no zoneout=0.1; use"),
        (
            {"cell": "mgu"},
            "cell must be one of 'rnn', 'gru', 'lstm', got 'mgu'; did you mean 'gru'? (a cell of your own",
        ),
        ({"plugin": "mgu.py"}, "cell='rnn' is built in: name the cell that plugin='mgu.py' registers"),
        (
            {"plugin": "mgu.py", "cell": "mgu", "backend": "gluon", "residual": False},
            "cell must be one of 'rnn', 'gru'",
        ),
        ({"encoding": "gb1803"}, "encoding must be an encoding such as 'utf-8' or 'gb18030', got 'gb1803'"),
        ({"encoding": "hex"}, "encoding must be an encoding such as"),
        (
            {"backend": "gluon", "residual": False, "dropout": 0.0, "diagnose": True},
            "diagnose=True needs backend='deep",
        ),
        ({"unknown": "no"}, "unknown must be true or false, got 'no'"),
        ({"unknown": 0}, "unknown must be true or false, got 0"),
        ({"corpus": ""}, "corpus is empty"),
        ({"corpus": 5}, "corpus must be a text, got 5"),
        ({"out": 5}, "out must be a text, got 5"),
        ({"split": [1, 0]}, "split must be three shares of at least 0 with sum 1, as 0.8,0.1,0.1; got [1, 0]"),
        ({"split": "a,b,c"}, "split must be three shares"),
        ({"split": 1}, "split must be three shares"),
        ({"split": None}, "split must be three shares"),
        ({"split": [0.8, 0.1, 0.2]}, "split must be three shares"),
        ({"split": [1.2, -0.1, -0.1]}, "split must be three shares"),
        ({"split": [float("nan"), 0, 1]}, "split must be three shares"),
        ({"split": "0,0.5,0.5"}, "split=0,0.5,0.5 leaves nothing to train on"),
        ({"layer": 2}, "unknown option 'layer' (did you mean 'layers'?)"),
        ({"xyz": 2}, "unknown option 'xyz'"),
        ({1: 2}, "unknown option 1"),
        ({"hidden-size": 2}, "unknown option 'hidden-size' (did you mean 'hidden_size'?)"),
        ({"model": {}}, "unknown option 'model'"),
    ],
)
def test_what_cannot_be_is_refused_by_name(options, expected):
    with pytest.raises((ValueError, TypeError)) as caught:
        RunConfig.from_mapping(options)
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)


def test_gluon_may_drop_out_on_a_gpu():
    options = {"backend": "gluon", "residual": False, "dropout": 0.5, "ctx": "gpu"}
    assert RunConfig.from_mapping(options).model.dropout == 0.5


@pytest.mark.parametrize("shares", ["1,0,0", [1, 0, 0], (1.0, 0.0, 0.0), " 1, 0, 0 "])
def test_split_spellings(shares):
    split = Split.parse(shares)
    assert split == (1, 0, 0)
    assert str(split) == "1,0,0"


@pytest.mark.parametrize("part", [*PARTS, RunConfig])
def test_frozen(part):
    with pytest.raises(dataclasses.FrozenInstanceError):
        part().layers = 3


def choices(part, name):
    return get_args(get_type_hints(part)[name])


def test_choices_are_those_of_the_package():
    """The configuration repeats the names, as it must be checked without loading MXNet."""
    from deeprnn.data import download, symbols
    from deeprnn.models import language_model
    from deeprnn.nn import cells, initializers

    assert language_model.CELLS == CELLS
    assert choices(ModelConfig, "backend") == language_model.BACKENDS
    assert choices(ModelConfig, "init") == tuple(initializers.INITIALIZERS)
    assert sorted(choices(ModelConfig, "activation")) == sorted(cells.ACTIVATIONS)
    assert choices(DataConfig, "unit") == symbols.UNITS
    for name in download.DOWNLOADS:
        assert name in DataConfig.__doc__


def test_default_of_a_choice_is_one_of_them():
    for part in PARTS:
        for name, hint in get_type_hints(part).items():
            if get_origin(hint) is Literal:
                assert getattr(part(), name) in get_args(hint)


def test_the_defaults_are_the_deep_recipe_but_for_dropout():
    recipe = yaml.safe_load((PROJECT / "configs" / "deep.yaml").read_text(encoding="utf-8"))
    assert not {"layers", "seed"} & set(recipe), "one recipe for every depth"
    defaults = RunConfig().to_mapping()
    differing = {name for name, value in recipe.items() if defaults[name] != value}
    assert differing == {"dropout", "epochs"}


def test_resolution_needs_no_command_line(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("layers: 3\nlr: 1e-3\n")
    arguments = {"preset": "book", "config": str(mine), "lr": 2.0, "out": "a"}
    run = resolve(arguments)
    assert (run.model.layers, run.train.lr, run.train.epochs, run.out) == (3, 2.0, 250, "a")
    sources = {name: origin(name, arguments) for name in ("lr", "layers", "epochs", "patience", "threads")}
    expected = {"lr": "arguments", "layers": "config", "epochs": "preset", "patience": "preset", "threads": "default"}
    assert sources == expected


def test_a_file_does_not_load_code(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("cell: mgu\nplugin: mgu.py\n")
    with pytest.raises(ValueError, match=r"loaded only if you name it again: plugin='mgu\.py'"):
        resolve({"config": str(mine)})
    assert resolve({"config": str(mine), "plugin": "other.py"}).model.plugin == "other.py"


@pytest.mark.parametrize(
    "text",
    [
        "layers: &a 2\nhidden_size: *a\n",
        "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
        "layers: !!python/object/apply:os.system ['true']\n",
        "layers: !!int 2\n",
        "[" * 5000,
        "{a: " * 5000,
        "".join(" " * n + "a:\n" for n in range(100)),
        "layers: " + "9" * 5000,
        "x" * 100_000,
        "\x00",
    ],
    ids=lambda text: text[:12],
)
def test_hostile_options_are_refused_soon(tmp_path, text):
    path = tmp_path / "options.yaml"
    path.write_text(text)
    with pytest.raises(OptionsFileError, match=r"options\.yaml"):
        read_options(path)


def test_a_name_that_is_not_utf_8_comes_back(tmp_path):
    path = tmp_path / "options.yaml"
    path.write_text(as_yaml({"corpus": "caf\udce9.txt", "lr": 1e-05}))
    assert read_options(path) == {"corpus": "caf\udce9.txt", "lr": 1e-05}
