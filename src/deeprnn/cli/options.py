"""Flags: those of all commands, made from the configuration, and those in error messages."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from argparse import Action
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any, Literal, Optional, get_args, get_origin, get_type_hints

from jsonargparse import ArgumentError, ArgumentParser, DefaultHelpFormatter, Namespace
from jsonargparse.typing import register_type

from .. import __version__
from .._util.arguments import as_flags, flag, help_text
from ..config import (
    DataConfig,
    EvaluateConfig,
    ExportConfig,
    GenerateConfig,
    LaunchConfig,
    ModelConfig,
    RunConfig,
    ServeConfig,
    Split,
    TrainConfig,
    presets,
    select,
)
from ..config.resolution import ACTIONS
from ..sampling import Sampler

__all__ = ["advice_in_flags", "in_flags", "parse"]

COMMANDS: dict[str, tuple[type, ...]] = {
    "train": (RunConfig, DataConfig, ModelConfig, TrainConfig),
    "generate": (GenerateConfig, Sampler),
    "evaluate": (EvaluateConfig,),
    "export": (ExportConfig,),
    "serve": (ServeConfig,),
    "launch": (LaunchConfig,),
}
"""The dataclasses whose fields are the flags of each command."""

NOT_FLAGS = {"data", "model", "train"}
"""Fields of `RunConfig` that hold options and are none themselves."""

OTHERS = {"train": ACTIONS, "launch": (), **dict.fromkeys(("generate", "evaluate", "export", "serve"), ("plugin",))}
"""Flags that are not made from a dataclass."""

NAMES = ("preset", "config", "init_from", "out", "corpus", "plugin", "prefix_file", "token_file", "encoding")
"""Options that name something, so that an empty text is none of them."""

METAVARS: dict[Any, str] = {bool: "{true,false}", int: "N", float: "X", str: "TEXT", Split: "TRAIN,VALID,TEST"}
SPECIAL = {
    **{"out": "FOLDER", "plugin": "FILE", "prefix_file": "FILE", "token_file": "FILE"},
    **{"host": "ADDRESS", "hosts": "NAMES", "cors": "ORIGINS"},
    **{"encoding": "NAME", "cell": "NAME", "corpus": "TEXT", "ctx": "DEVICES"},
}
"""Placeholders for values in the help, by type and by option."""


class HelpFormatter(DefaultHelpFormatter):
    """Help in the form of all scripts, with flags in place of names; types are not shown."""

    def _get_help_string(self, action: Action) -> str:
        return in_flags(help_text(action))

    def _format_action(self, action: Action) -> str:
        parts = list(self._iter_indented_subactions(action))
        if parts and not action.option_strings:  # the commands, without jsonargparse's heading
            return self._join_parts([self._format_action(part) for part in parts])
        return super()._format_action(action)


class Version(Action):
    """Print the version, and whether the native operator serves the layers; then exit."""

    def __call__(self, parser: Any, *_: Any) -> None:
        print(f"deeprnn {__version__}", flush=True)
        from ..nn import native  # loads MXNet

        print(native.status())
        parser.exit()


class FlagParser(ArgumentParser):
    """A parser whose flags have dashes, whose switches need no value, and which raises errors."""

    def __init__(self, **options: Any) -> None:
        super().__init__(exit_on_error=False, allow_abbrev=False, formatter_class=HelpFormatter, **options)
        self.add_argument("--version", action=Version, nargs=0, help="Show the version and exit.")

    def add_argument(self, *names: str, **options: Any) -> Any:
        if options.get("type") is bool:
            options.update(nargs="?", const=True)
        return super().add_argument(*(flag(name[2:]) if name.startswith("--") else name for name in names), **options)

    def add_options(self, part: type, **options: Any) -> None:
        """Add the fields of a dataclass as flags."""
        self.add_class_arguments(part, **options)
        hints = get_type_hints(part)
        for action in self._actions:
            if action.dest in hints:
                action.metavar = SPECIAL.get(action.dest) or _placeholder(hints[action.dest])
                if hints[action.dest] == Optional[str]:
                    # As given: jsonargparse reads an optional text as YAML, to which "#3", "~" and "null" are nothing.
                    action._typehint = str  # type: ignore[attr-defined]


def _placeholder(kind: Any) -> Optional[str]:
    kinds = [kind, *get_args(kind)]  # Optional[int] has int among its arguments
    for each in kinds:
        if get_origin(each) is Literal:
            return "{" + ",".join(get_args(each)) + "}"
    return next((METAVARS[each] for each in kinds if each in METAVARS), None)


ANYTHING = "Folder of a run, exported folder, or .onnx file."
ABOUT = {
    "train": ("Train a language model on a text.", "[options]"),
    "generate": ("Generate text with a trained model.", "MODEL [options]"),
    "evaluate": ("Evaluate a trained model on a text.", "MODEL [options]"),
    "export": ("Write a trained model for use elsewhere.", "RUN [options]"),
    "serve": ("Serve a trained model: a page and an API.", "MODEL [MODEL2] [options]"),
    "launch": ("Train with several processes on this machine.", "[options] -- train [options of train]"),
}
"""What each command does, and its arguments in short."""


def command_line(wanted: str = "") -> FlagParser:
    """The parser of all commands. Names, types, defaults and help come from the dataclasses of the configuration.

    If a command is `wanted`, it alone gets its options: adding those of all takes longer than the rest of parsing.
    """
    register_type(Split, serializer=list, deserializer=Split.parse)
    parser = FlagParser(
        prog="deeprnn", description="Deep recurrent networks for MXNet Gluon.", usage="deeprnn COMMAND ..."
    )
    commands = parser.add_subcommands(
        dest="command",
        metavar="COMMAND",
        title="commands",
        description="For the options of a command: deeprnn COMMAND --help",
    )
    for name, (description, synopsis) in ABOUT.items():
        command = FlagParser(description=description, usage=f"deeprnn {name} {synopsis}")
        if name == wanted or wanted not in ABOUT:
            _add_arguments(command, name, synopsis.partition(" ")[0])
        commands.add_subcommand(name, command, help=description)
    return parser


def _add_arguments(command: FlagParser, name: str, source: str) -> None:
    first, *others = COMMANDS[name]
    if name == "train":
        command.add_argument("--preset", metavar="NAME", help=f"Use the options of a preset: {', '.join(presets())}.")
        command.add_argument("--config", metavar="FILE", help="Use the options of a YAML file; they override a preset.")
        command.add_options(first, as_group=False, skip=NOT_FLAGS)
        command.add_argument("--resume", action="store_true", help="Continue the run in --out.")
        command.add_argument(
            "--init-from", metavar="RUN", help="Start with the weights and the vocabulary of another run."
        )
    elif name == "launch":
        command.description = f"{command.description} Each runs the command after --."
        command.add_argument("command_line", nargs="*", help=argparse.SUPPRESS)
        command.add_options(first)
    else:
        command.add_argument(
            source.lower(), metavar=source, help="Folder of the run." if name == "export" else ANYTHING
        )
        if name == "serve":
            command.add_argument(
                "second", metavar="MODEL2", nargs="?", help="A second model, to compare with the first."
            )
        command.add_argument(
            "--plugin",
            metavar="FILE",
            help="Python file, or module:class, that registers the run's cell. It is executed, so name only code that "
            "you trust.",
        )
        command.add_options(first)
    for options in others:
        command.add_options(options)


def parse(argv: Optional[Sequence[str]] = None) -> Namespace:
    """Parse a command line, by default that of the process, without filling in defaults.

    Raises
    ------
    ValueError
        For arguments that cannot be parsed; the message names the flag, and may suggest another.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments:
        raise ValueError(f"a command is missing: {', '.join(COMMANDS)}, or --help")
    command = arguments[0]
    if command not in COMMANDS and not command.startswith("-"):
        raise ValueError(f"{command!r} is not a command{_closest(command, COMMANDS) or ': ' + ', '.join(COMMANDS)}")
    try:
        parsed = command_line(command).parse_args(arguments, defaults=False)
    except ArgumentError as error:
        raise ValueError(_explained(error, command)) from error
    except OverflowError as error:
        raise ValueError(f"a number is too large: {error}") from error
    empty = [name for name, value in vars(parsed[command]).items() if value == "" and name in NAMES]
    if empty:  # such as a variable of the shell that is not set
        raise ValueError(f"{empty[0]} must not be empty")
    return parsed


def in_flags(message: str) -> str:
    """A message of the library with flags in place of its arguments: ``layers=2`` -> ``--layers 2``."""
    return as_flags(message, {name for command in COMMANDS for name in _names(command)})


def advice_in_flags(sentence: str) -> str:
    """A sentence of a diagnosis with flags in place of ``name=value``; "layers 1 to 3" is not an option."""
    return as_flags(sentence, ("init", "residual", "cell", "activation"))


def _names(command: str) -> list[str]:
    names = [field.name for part in COMMANDS[command] for field in fields(part)]
    return [name for name in [*OTHERS[command], *names] if name not in NOT_FLAGS]


def _explained(error: ArgumentError, command: str) -> str:
    """The parser's error in the words of the configuration, or with a suggestion."""
    text = " ".join(str(error).split())
    wrong = re.match(r'Parser key "(\w+)": .*[Vv]alue: (.*)', text)
    stray = re.match(r"unrecognized arguments: (--[\w-]+)", text)
    if wrong:
        for part in COMMANDS.get(command, ()):
            try:
                select(part, {wrong[1]: wrong[2]})
            except (TypeError, ValueError) as ours:
                return str(ours)
    if stray:
        return text + _suggestion(stray[1], command)
    return re.sub(r'^Parser key "\w+": Not of type \w+: |\b\w+\.(?=(run|model)$)', "", text)


def _suggestion(stray: str, command: str) -> str:
    owners = [f"deeprnn {name}" for name in COMMANDS if name != command and stray in map(flag, _names(name))]
    if owners:
        return f" (a flag of {' and '.join(owners)})"
    return _closest(stray, map(flag, _names(command) if command in COMMANDS else ()))


def _closest(word: str, words: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, words, n=1)
    return f" (did you mean {close[0]}?)" if close else ""
