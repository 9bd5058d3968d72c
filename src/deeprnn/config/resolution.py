"""Resolution: a run's options from defaults, the run being resumed, a preset, a YAML file and arguments."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import get_loader

from .._util.checks import check_choice
from .run import RunConfig

__all__ = [
    "ACTIONS",
    "PRESETS",
    "OptionsFileError",
    "as_yaml",
    "check_resumed",
    "default_folder",
    "origin",
    "presets",
    "read_options",
    "read_value",
    "resolve",
]

PRESETS = Path(__file__).parent.parent / "configs"

ACTIONS = ("preset", "config", "resume", "init_from")
"""Arguments that name sources of options and weights. They are not options, so they are not saved with the run."""

MAY_CHANGE = (
    *("out", "corpus", "check_cache", "plugin", "epochs", "patience"),
    *("threads", "ctx", "kvstore", "timeout", "tensorboard"),
    *("checkpoint_minutes", "checkpoint_steps", "on_nan"),
    *("sample_every", "sample_length", "sample_prefix", "sample_greedy", "diagnose"),
)
"""Options that may differ when a run is resumed. (The text may not, but only its SHA-256 matters, not its path.)"""


LONGEST = 100
"""Bytes of a text's name in the name of a folder."""

LARGEST = 1 << 16
"""Bytes of a file of options."""

DEEPEST = 10
"""Deepest nesting in a file of options; a valid one has two levels."""

OPENING = (
    yaml.FlowSequenceStartToken,
    yaml.FlowMappingStartToken,
    yaml.BlockSequenceStartToken,
    yaml.BlockMappingStartToken,
)
CLOSING = (yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken, yaml.BlockEndToken)


class OptionsFileError(ValueError):
    """A file of options that cannot be used. The message names the options as in the file."""


def presets() -> list[str]:
    """Names of the presets, sorted."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def read_options(path: Path) -> dict[str, Any]:
    """Read the options of a YAML file and check each of them.

    Raises
    ------
    OptionsFileError
        For a file that is not YAML, an unknown option, or an invalid value; the message begins with the path.
    OSError
        For a file that cannot be read.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise ValueError(f"a file of options has at most {LARGEST:,} bytes")
        text = content.decode("utf-8")
        _check_tokens(text)
        # libyaml refuses the escapes in the name of a file that is not UTF-8.
        options = yaml.safe_load(text) if "\\uDC" in text else get_loader("yaml")(text)
        if options is None:
            return {}
        if not isinstance(options, dict):
            raise ValueError(f"expected options such as layers: 2, one per line, got {options!r}")
        RunConfig.from_mapping(options)
    except UnicodeDecodeError as error:
        raise OptionsFileError(f"{path} is not UTF-8") from error
    except yaml.YAMLError as error:
        raise OptionsFileError(f"{path} is not YAML: {error}") from error
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise OptionsFileError(f"{path}: {error}") from error
    return options


def read_value(text: str) -> Any:
    """The value of an option as a YAML file has it.

    >>> read_value("128"), read_value("1e-3"), read_value("false"), read_value("0.8,0.1,0.1")
    (128, 0.001, False, '0.8,0.1,0.1')
    """
    return get_loader("yaml")(text)


def _check_tokens(text: str) -> None:
    """Raise ValueError for syntax with which a small file could take much memory or time."""
    depth = 0
    for token in yaml.scan(text):
        # An alias can expand to a tree that is larger than memory.
        if isinstance(token, (yaml.AnchorToken, yaml.AliasToken, yaml.TagToken)):
            raise ValueError("anchors (&), aliases (*) and tags (!) are not read")
        depth += isinstance(token, OPENING) - isinstance(token, CLOSING)
        if depth > DEEPEST:
            raise ValueError(f"it has more than {DEEPEST} levels")


def resolve(arguments: Mapping[str, Any]) -> RunConfig:
    """Resolve the options of a run.

    Later sources override earlier ones: defaults, the run that is resumed, the preset, the YAML file, the arguments.

    Parameters
    ----------
    arguments
        Options by name, and any of `ACTIONS`: ``resume`` (bool, with ``out``), ``preset`` (a name), ``config`` (a
        path). ``init_from`` has no influence on the options.

    Raises
    ------
    ValueError, TypeError, OSError
        For invalid options and files; for a resumed run with an option that must not change; and for a plugin that only
        a file names, as code is loaded only if the caller names it.

    Examples
    --------
    >>> resolve({"preset": "book", "layers": 2}).model.layers
    2
    """
    sources = _sources(arguments)
    begun = sources.get("resume", {})
    options: dict[str, Any] = {}
    for source in sources.values():
        options.update(source)
    if options.get("plugin") and "plugin" not in sources["arguments"]:
        raise ValueError(
            f"cell={options.get('cell')!r} is registered by a plugin, {options['plugin']}; it holds code, "
            f"so it is loaded only if you name it again: plugin={options['plugin']!r}"
        )
    run = RunConfig.from_mapping(options)
    check_resumed(run, begun)
    return run if run.out else replace(run, out=default_folder(run))


def check_resumed(run: RunConfig, begun: Mapping[str, Any]) -> None:
    """Raise ValueError for an option that differs from those with which the run was begun, and must not."""
    now, then = run.to_mapping(), RunConfig.from_mapping(begun).to_mapping()
    for name in begun:
        if name not in MAY_CHANGE and now[name] != then[name]:
            kept, given = (
                ",".join(map(str, each)) if isinstance(each, list) else each for each in (then[name], now[name])
            )
            raise ValueError(f"resume: the run in {run.out} has {name}={kept}, got {given}")


def origin(name: str, arguments: Mapping[str, Any]) -> str:
    """Where the value of an option comes from: default, resume, preset, config or arguments."""
    return next((kind for kind, options in reversed(_sources(arguments).items()) if name in options), "default")


def default_folder(run: RunConfig) -> str:
    """A folder named after the text, the model and the time."""
    text = re.sub(r"[^\w-]+", "-", Path(run.data.corpus).name.split(".")[0]).strip("-")
    text = text.encode()[:LONGEST].decode(errors="ignore") or "text"
    model = f"{run.model.cell}-{run.model.layers}x{run.model.hidden_size}"
    folder = f"runs/{text}-{model}-{time.strftime('%Y%m%d-%H%M%S')}"
    others = (f"{folder}-{number}" for number in itertools.count(2))
    return next(each for each in itertools.chain([folder], others) if not Path(each).exists())


def as_yaml(options: Mapping[str, Any], flow: bool = False) -> str:
    """Options as `read_options` reads them, without the folder, so that another run can use them.

    Parameters
    ----------
    flow
        Write a few lines, as ``{layers: 2, lr: 0.005}``, instead of one line per option.
    """
    options = {name: value for name, value in options.items() if name != "out"}
    return yaml.safe_dump(
        options, default_flow_style=flow or None, width=110 if flow else 80, sort_keys=False, allow_unicode=True
    )


def _sources(arguments: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The options of each source, the strongest source last."""
    sources = {}
    if arguments.get("resume"):
        sources["resume"] = read_options(Path(arguments["out"]) / "config.yaml")
    if arguments.get("preset") is not None:
        sources["preset"] = read_options(PRESETS / f"{check_choice('preset', arguments['preset'], presets())}.yaml")
    if arguments.get("config") is not None:
        sources["config"] = read_options(Path(arguments["config"]))
    sources["arguments"] = {name: value for name, value in arguments.items() if name not in ACTIONS}
    return sources
