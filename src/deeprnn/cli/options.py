"""The flags of all commands, and the run that they describe with presets and files."""

from __future__ import annotations

import difflib
import re
import time
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace, get_loader
from jsonargparse.typing import register_type

from .. import __version__
from .._util.checks import check_choice
from ..config import (
    DataConfig,
    EvaluateConfig,
    GenerateConfig,
    ModelConfig,
    RunConfig,
    Split,
    TrainConfig,
    chosen,
    flag,
)
from ..generation import Sampler

__all__ = ["PRESETS", "command_line", "in_yaml", "presets", "read_options", "resolve", "told"]

PRESETS = Path(__file__).parent.parent / "configs"

ACTS = ("preset", "config", "resume", "init_from")
"""Flags that say what to do, not what the run is: they are not saved with it."""

OPTIONS = (RunConfig, DataConfig, ModelConfig, TrainConfig, GenerateConfig, Sampler, EvaluateConfig)
"""Where the flags come from."""

MAY_CHANGE = (
    *("out", "corpus", "epochs", "patience", "threads", "ctx", "tensorboard"),
    *("sample_every", "sample_length", "sample_prefix", "sample_greedy", "diagnose"),
)
"""Options that need not be what they were when a run is taken up again; of the text, its SHA-256 is compared."""


class Parser(ArgumentParser):
    """Spells options with dashes and takes a switch alone for true; raises what is wrong."""

    def __init__(self, **options: Any) -> None:
        super().__init__(exit_on_error=False, allow_abbrev=False, **options)
        self.add_argument("--version", action="version", version=f"deeprnn {__version__}", help="Print the version.")

    def add_argument(self, *names: str, **options: Any) -> Any:
        if options.get("type") is bool:
            options.update(nargs="?", const=True)
        return super().add_argument(*(flag(name[2:]) if name.startswith("--") else name for name in names), **options)


def command_line() -> Parser:
    """The flags of all commands; what one means, and may be, is said by the dataclass field that it sets."""
    register_type(Split, serializer=list, deserializer=Split.parse)
    parser = Parser(prog="deeprnn", description="Deep recurrent networks for MXNet Gluon.")
    commands = parser.add_subcommands(dest="command", metavar="COMMAND", title="commands")

    train = Parser(description="Train a language model on a text.", usage="deeprnn train [options]")
    train.add_argument("--preset", metavar="NAME", help=f"Take the options of a preset: {', '.join(presets())}.")
    train.add_argument("--config", metavar="FILE", help="Take the options in a YAML file; they go before a preset's.")
    train.add_class_arguments(RunConfig, as_group=False, skip={"data", "model", "train"})
    train.add_argument("--resume", action="store_true", help="Go on with the run in --out.")
    train.add_argument("--init-from", metavar="RUN", help="Begin with another run's weights and vocabulary.")
    for part in (DataConfig, ModelConfig, TrainConfig):
        train.add_class_arguments(part)
    commands.add_subcommand("train", train, help=train.description)

    generate = Parser(description="Write text with a trained model.", usage="deeprnn generate RUN [options]")
    generate.add_argument("run", metavar="RUN", help="Folder of the run.")
    generate.add_class_arguments(GenerateConfig)
    generate.add_class_arguments(Sampler)
    commands.add_subcommand("generate", generate, help=generate.description)

    evaluate = Parser(description="Measure a trained model.", usage="deeprnn evaluate RUN [options]")
    evaluate.add_argument("run", metavar="RUN", help="Folder of the run.")
    evaluate.add_class_arguments(EvaluateConfig)
    commands.add_subcommand("evaluate", evaluate, help=evaluate.description)
    return parser


def told(error: ArgumentError) -> str:
    """The parser's error: in the configuration's words if it has any, and with the flag that may have been meant."""
    text = " ".join(str(error).split())
    wrong = re.match(r'Parser key "(\w+)": .*[Vv]alue: (.*)', text)
    stray = re.match(r"unrecognized arguments: (--[\w-]+)", text)
    if wrong:
        for part in OPTIONS:
            try:
                chosen(part, {wrong[1]: wrong[2]})
            except (TypeError, ValueError) as ours:
                return str(ours)
    if stray:
        known = [*ACTS, *(field.name for part in OPTIONS for field in fields(part))]
        close = difflib.get_close_matches(stray[1], map(flag, known), n=1)
        return f"{text} (did you mean {close[0]}?)" if close else text
    return re.sub(r'^Parser key "\w+": Not of type \w+: |\b\w+\.(?=run$)', "", text)


def presets() -> list[str]:
    """The names of the presets, in order."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def read_options(path: Path) -> dict[str, Any]:
    """The options in a YAML file, each one checked, so that the error can say which file it is in."""
    try:
        options = get_loader("yaml")(path.read_text(encoding="utf-8"))
        if options is None:
            return {}
        if not isinstance(options, dict):
            raise ValueError(f"expected options such as layers: 2, one a line, got {options!r}")
        RunConfig.from_mapping(options)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {error}") from error
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error
    return options


def resolve(given: Namespace) -> RunConfig:
    """The defaults, what the run began with (--resume), --preset, --config, the flags: the last of them counts."""
    begun = read_options(Path(given.out) / "config.yaml") if given.get("resume") else {}
    options = dict(begun)
    if given.get("preset"):
        options |= read_options(PRESETS / f"{check_choice('--preset', given.preset, presets())}.yaml")
    if given.get("config"):
        options |= read_options(Path(given.config))
    options |= {name: value for name, value in vars(given).items() if name not in ACTS}
    run = RunConfig.from_mapping(options)
    now, then = run.to_mapping(), RunConfig.from_mapping(begun).to_mapping()
    for name in begun:
        if name not in MAY_CHANGE and now[name] != then[name]:
            raise ValueError(f"--resume: the run in {run.out} has {flag(name)} {then[name]}, got {now[name]}")
    return run if run.out else replace(run, out=default_folder(run))


def default_folder(run: RunConfig) -> str:
    """What tells runs apart: text, model, time."""
    text = re.sub(r"[^\w-]+", "-", Path(run.data.corpus).name.split(".")[0]) or "text"
    model = f"{run.model.cell}-{run.model.layers}x{run.model.hidden_size}"
    return f"runs/{text}-{model}-{time.strftime('%Y%m%d-%H%M%S')}"


def in_yaml(options: Mapping[str, Any], flow: bool = False) -> str:
    """Options as --config reads them, one a line or many; without the folder, so that another run can have them."""
    options = {name: value for name, value in options.items() if name != "out"}
    return yaml.safe_dump(
        options, default_flow_style=flow or None, width=110 if flow else 80, sort_keys=False, allow_unicode=True
    )
