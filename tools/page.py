"""Records of studies of depth as one page of HTML: no script, nothing to load, light and dark, desk and phone.

The template `templates/depth.html.j2` has the words and the mark-up; this module computes the values that fill it.
Drawings are from `charts`, headings and sentences of the verdicts from `verdicts`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Optional

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from . import charts
from .inline_svg import svg
from .verdicts import PART_NAMES, verdict
from .wording import count_of, layer_count, listed, perplexity, seconds

__all__ = ["ALLOWED", "page"]

Record = Mapping[str, Any]

ALLOWED = 0.05
"""A text that repeats more than the training text of the same length, by more than this share, is marked."""

QUOTED = 400
"""Characters of a text that are shown."""

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Cell:
    """A value, and a note in small letters below it."""

    value: str
    note: str = ""
    marked: bool = False


@dataclass(frozen=True)
class TableRow:
    """One recipe and depth; the recipe's name is shown at its first row."""

    recipe: str
    first: bool
    layers: int
    colour: int
    cells: Sequence[Cell]


@dataclass(frozen=True)
class Table:
    """Rows under the headings of their cells."""

    heads: Sequence[str]
    rows: list[TableRow] = field(default_factory=list)


def page(*records: Record) -> str:
    """The page of one record of `study_record.record`, or of several, one below the other."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["layer_count"] = layer_count
    template = environment.get_template("depth.html.j2")
    return template.render(studies=[_study(record) for record in records], allowed=ALLOWED, quoted=QUOTED)


def _study(record: Record) -> dict[str, Any]:
    """What the template shows of one record."""
    recipes = _by_recipe(record)
    groups = [group for some in recipes.values() for group in some]
    depths = sorted({group["layers"] for group in groups})
    colours = {layers: i % charts.COLOUR_COUNT for i, layers in enumerate(depths)}
    return {
        "record": record,
        "compared": _compared(record, recipes, depths),
        "machine": _machine(record),
        "verdicts": [(name, *_headline(verdict(some, record["perplexity"]))) for name, some in recipes.items()],
        "curves": _curves(record, recipes, depths),
        "numbers": _numbers(record, groups, colours),
        "train_at": _train_at(groups, colours),
        "gradients": _gradients(recipes),
        "texts": _texts(record, groups, colours),
        "settings": _settings(record["settings"]),
        "command": record["command"].replace(" --", " \\\n    --"),
    }


def _by_recipe(record: Record) -> dict[str, list[Record]]:
    """The groups of each recipe, by depth."""
    recipes: dict[str, list[Record]] = {}
    for group in record["groups"]:
        recipes.setdefault(group["recipe"], []).append(group)
    return {name: sorted(groups, key=lambda group: group["layers"]) for name, groups in recipes.items()}


def _headline(sentences: Sequence[str]) -> tuple[str, str]:
    headline, *rest = sentences
    return headline, " ".join(rest)


def _compared(record: Record, recipes: Iterable[str], depths: Sequence[int]) -> str:
    """What was trained, on what."""
    corpus, runs, names = record["corpus"], record["runs"], list(recipes)
    unit = {"char": "characters", "word": "words"}[corpus["unit"]]
    sizes = listed(f"{count:,} {unit} for {PART_NAMES[part]}" for part, count in corpus["symbols"].items() if count)
    seeds = len({run["seed"] for run in runs})
    sentences = (
        f"The {'recipe' if len(names) == 1 else 'recipes'} {listed(names)} for a recurrent language model, with "
        f"{listed(depths)} {'layer' if depths == [1] else 'layers'} and {count_of(seeds, 'seed')} each. "
        f"The text is {corpus['name']}: {sizes}, {corpus['vocabulary']:,} different ones."
    )
    if len(runs) < record["planned"]:
        sentences += f" {len(runs)} of {record['planned']} runs are over; the others are missing here."
    return sentences


def _machine(record: Record) -> str:
    machine = record["machine"]
    hardware = [machine["processor"], count_of(machine["cores"], "core"), machine["instruction_set"]]
    return (
        f"{record['date']}; {', '.join(filter(None, hardware))}; mxnet {machine['mxnet']}, numpy {machine['numpy']}, "
        f"Python {machine['python']}, deeprnn {machine['deeprnn']}; "
        f"{count_of(record['threads_per_run'], 'thread')} for each run."
    )


def _curves(record: Record, recipes: Iterable[str], depths: Sequence[int]) -> list[tuple[str, Markup]]:
    """Titles and drawings: for each recipe, training and, if text was held out, validation."""
    found = []
    for name in recipes:
        for part in ("train", "valid"):
            if any(value is not None for run in record["runs"] if run["recipe"] == name for value in run[part]):
                title = f"{name}, {PART_NAMES[part]} perplexity"
                found.append((title, _drawn(charts.perplexity_chart(record, name, part, depths), title)))
    return found


def _drawn(figure: Any, label: str) -> Markup:
    return Markup(svg(figure, label))  # an XML serializer has escaped it


# Tables.


def _numbers(record: Record, groups: Sequence[Record], colours: Mapping[int, int]) -> Table:
    """What tells the depths apart comes first: perplexities, size, time."""
    parts = [part for part in reversed(PART_NAMES) if any(group[part]["low"] is not None for group in groups)]
    reached = any(group["epochs_to"]["low"] is not None for group in groups)
    goal = f"{record['perplexity']:g}"
    heads = [f"{PART_NAMES[part]} perplexity" for part in parts]
    heads += ["test loss, nats"] if "test" in parts else []
    heads += ["parameters"]
    heads += [f"epochs to {goal}", f"seconds to {goal}"] if reached else []
    heads += ["seconds in all", "diverged"]

    def cells(group: Record) -> list[Cell]:
        row = [_spread(group[part], perplexity, "diverged") for part in parts]
        row += [_spread(group["test_loss"], "{:.4f}".format, "diverged")] if "test" in parts else []
        row += [Cell("–" if group["parameters"] is None else f"{group['parameters']:,}")]
        if reached:
            row += [
                _spread(group["epochs_to"], "{:g}".format, "never"),
                _spread(group["seconds_to"], seconds, "never"),
            ]
        return [
            *row,
            _spread(group["seconds"], seconds, "–"),
            Cell(f"{group['diverged']} of {len(group['seeds'])}"),
        ]

    return _table(heads, groups, colours, cells)


def _train_at(groups: Sequence[Record], colours: Mapping[int, int]) -> Table:
    """Training perplexity after some numbers of epochs."""
    shown = sorted({int(epoch) for group in groups for epoch in group["train_at"]})

    def cells(group: Record) -> list[Cell]:
        return [_spread(group["train_at"].get(str(epoch), {}), perplexity, "diverged", absent="") for epoch in shown]

    return _table([f"{epoch}" for epoch in shown], groups, colours, cells)


def _table(
    heads: Sequence[str], groups: Sequence[Record], colours: Mapping[int, int], cells: Callable[[Record], list[Cell]]
) -> Table:
    table, before = Table(heads), None
    for group in groups:
        recipe, layers = group["recipe"], group["layers"]
        table.rows.append(TableRow(recipe, recipe != before, layers, colours[layers], cells(group)))
        before = recipe
    return table


def _spread(
    spread: Mapping[str, Optional[float]], shown: Callable[[float], str], infinite: str, absent: str = "–"
) -> Cell:
    if not spread:
        return Cell(absent)
    median, low, high = (
        infinite if value is None else shown(value) for value in map(spread.get, ("median", "low", "high"))
    )
    return Cell(median, "" if low == high else f"{low} to {high}")


# Gradients.


def _gradients(recipes: Mapping[str, Sequence[Record]]) -> dict[str, Any]:
    """The scale that all heat maps share, and by recipe the maps; empty if no run was diagnosed."""
    known = [
        math.log10(value)
        for groups in recipes.values()
        for group in groups
        for row in group["diagnosis"]
        for value in row["gradient"]
        if value is not None and 0 < value < math.inf
    ]
    if not known:
        return {}
    low = math.floor(min(known))
    high = max(math.ceil(max(known)), low + 1)
    return {
        "scale": _drawn(charts.gradient_scale(low, high), "scale of the gradient"),
        "recipes": [
            [_gradient_map(group, low, high) for group in groups if group["diagnosis"]] for groups in recipes.values()
        ],
    }


def _gradient_map(group: Record, low: int, high: int) -> dict[str, Any]:
    title = f"{group['recipe']}, {layer_count(group['layers'])}"
    first, last = group["diagnosis"][0], group["diagnosis"][-1]
    return {
        "title": title,
        "drawing": _drawn(charts.gradient_chart(group, low, high), f"gradient by layer, {title}"),
        "findings": [first] if first is last else [first, last],
    }


# Texts, and how to train again.


def _texts(record: Record, groups: Sequence[Record], colours: Mapping[int, int]) -> dict[str, Any]:
    """Measures of the texts, and those that are quoted; empty if there are none."""
    groups = [group for group in groups if group["texts"]]
    if not groups:
        return {}
    ways = list(dict.fromkeys(text["way"] for group in groups for text in group["texts"]))
    allowed = record["corpus"]["repeated"] + ALLOWED

    def cells(group: Record) -> list[Cell]:
        texts = {text["way"]: text for text in group["texts"]}
        return [_measures(texts[way], allowed) if way in texts else Cell("") for way in ways]

    return {
        "characters": groups[0]["texts"][0]["characters"],
        "measures": _table(ways, groups, colours, cells),
        "quoted": [group for group in groups if any("text" in text for text in group["texts"])],
    }


def _measures(text: Record, allowed: float) -> Cell:
    return Cell(
        f"{text['repeated']:.1%} again",
        f"{text['copied']:.1%} copied, longest {text['longest']:,}",
        text["repeated"] > allowed,
    )


def _settings(settings: Mapping[str, Record]) -> list[tuple[str, list[str], bool]]:
    """The options: name, value in each recipe, and whether the recipes differ in it."""
    rows = []
    for name in next(iter(settings.values())):
        values = [_option(recipe.get(name)) for recipe in settings.values()]
        rows.append((name, values, len(set(values)) > 1))
    return rows


def _option(value: Any) -> str:
    if value is None:
        return "all"
    if isinstance(value, list):
        return ", ".join(map(_option, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
