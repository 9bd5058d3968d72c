"""The record of a study of depth as one page of HTML: no script, nothing to load, light and dark, desk and phone."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, Optional, Union

__all__ = ["page", "verdict"]

Record = Mapping[str, Any]
Point = tuple[float, float]

COLOURS = 6
"""Depths told apart by colour, then the colours come again, dashed (Okabe and Ito 2008: safe for colour-blind eyes)."""

WORSE = 0.01
"""A deeper stack this much above one layer's perplexity is worse."""

ALLOWED = 0.05
"""A text may repeat this much more than the training text does over the same length."""

QUOTED = 400
"""Characters of a text that are shown."""

HEAT = ("#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30", "#fde725")
"""From little to much: viridis, even to the eye, in grey too."""

RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

COLUMNS = 48
"""Columns of a heat map, and points of a curve: more than these are thinned out."""
POINTS = 200

PARTS = {"train": "training", "valid": "validation", "test": "test"}

STYLE = """
:root { color-scheme: light dark; --paper: #fbfaf6; --card: #fff; --ink: #1e2023; --quiet: #666a70; --line: #dfdcd3;
  --mark: #b3401d; --d0: #0072b2; --d1: #d55e00; --d2: #009e73; --d3: #b0578d; --d4: #a87b00; --d5: #2b97c9;
  --none: #e4e1d9; }
@media (prefers-color-scheme: dark) { :root { --paper: #15171a; --card: #1d2024; --ink: #e7e5e0; --quiet: #9ba0a7;
  --line: #34383e; --mark: #ff9a76; --d0: #4ba3e0; --d1: #f08a3c; --d2: #2fc397; --d3: #df8fbd; --d4: #e3b83a;
  --d5: #8fd3f7; --none: #2b2f34; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI",
  Roboto, "Noto Sans", sans-serif; -webkit-text-size-adjust: 100%; }
main { max-width: 1080px; margin: 0 auto; padding: 40px 20px 64px; }
h1 { font-size: 2.1rem; line-height: 1.15; letter-spacing: -.02em; margin: 0 0 8px; }
h2 { font-size: 1.3rem; letter-spacing: -.01em; margin: 52px 0 4px; }
h3 { font-size: 1rem; margin: 0 0 6px; }
p { margin: 6px 0 14px; max-width: 70ch; overflow-wrap: anywhere; }
.quiet, figcaption, small { color: var(--quiet); }
small { font-size: .82em; }
.grid { display: grid; gap: 16px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 16px 18px; margin: 0;
  min-width: 0; }
.maps { columns: 420px 2; column-gap: 16px; margin-top: 8px; }
.maps .card { break-inside: avoid; margin-bottom: 16px; }
.legend { max-width: 440px; }
.card p:last-child { margin-bottom: 0; }
.verdict h3 { font-size: 1.15rem; }
.verdict .name, .name { color: var(--quiet); font-size: .82rem; letter-spacing: .03em; }
svg { display: block; width: 100%; height: auto; font: 13px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
svg text { fill: var(--quiet); font-variant-numeric: tabular-nums; }
svg rect { shape-rendering: crispEdges; }
svg .axis { stroke: var(--line); fill: none; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 10px; background: var(--card);
  margin: 12px 0; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: 7px 12px; text-align: right; white-space: nowrap; vertical-align: baseline; }
th { font-weight: 600; } thead th { color: var(--quiet); font-weight: 500; font-size: .82rem; vertical-align: bottom; }
tbody tr { border-top: 1px solid var(--line); }
tbody tr.first { border-top: 2px solid var(--quiet); }
th.left, td.left { text-align: left; }
td small { display: block; }
.over { color: var(--mark); font-weight: 600; }
.swatch { display: inline-block; width: .7em; height: .7em; border-radius: 2px; margin-right: .5em; }
ul { margin: 6px 0 0; padding-left: 1.1em; font-size: .9rem; }
@media (max-width: 480px) { main { padding: 28px 14px 48px; } .card { padding: 14px 12px; } }
details { margin: 10px 0; } summary { cursor: pointer; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font: .84rem/1.5 ui-monospace, "SF Mono", Menlo, Consolas,
  "DejaVu Sans Mono", monospace; background: var(--paper); border: 1px solid var(--line); border-radius: 8px;
  padding: 10px 12px; margin: 6px 0 14px; }
pre.command { white-space: pre; overflow-x: auto; }
"""


def page(record: Record) -> str:
    """The page for a record of `study.record`."""
    depths = sorted({group["layers"] for group in record["groups"]})
    colour = {layers: f"var(--d{i % COLOURS})" for i, layers in enumerate(depths)}
    name = record["corpus"]["name"]
    body = "\n".join(
        section
        for section in (
            _head(record),
            _curves(record, colour),
            _numbers(record, colour),
            _gradients(record),
            _texts(record, colour),
            _again(record),
        )
        if section
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Does depth pay? {escape(name)}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def _recipes(record: Record) -> dict[str, list[Record]]:
    """The groups of each recipe, by depth."""
    recipes: dict[str, list[Record]] = {}
    for group in record["groups"]:
        recipes.setdefault(group["recipe"], []).append(group)
    return {name: sorted(groups, key=lambda group: group["layers"]) for name, groups in recipes.items()}


# What was compared, and what came of it.


def _head(record: Record) -> str:
    corpus, machine, runs = record["corpus"], record["machine"], record["runs"]
    recipes = _recipes(record)
    depths = sorted({group["layers"] for group in record["groups"]})
    seeds = len({run["seed"] for run in runs})
    unit = {"char": "characters", "word": "words"}[corpus["unit"]]
    sizes = _listed(f"{count:,} {unit} for {PARTS[part]}" for part, count in corpus["symbols"].items() if count)
    compared = (
        f"The {'recipe' if len(recipes) == 1 else 'recipes'} {_listed(recipes)} for a recurrent language model, with "
        f"{_listed(depths)} {'layer' if depths == [1] else 'layers'} and {_counted(seeds, 'seed')} each. "
        f"The text is {corpus['name']}: {sizes}, {corpus['vocabulary']:,} different ones."
    )
    if len(runs) < record["planned"]:
        compared += f" {len(runs)} of {record['planned']} runs are over; the rest is missing here."
    hardware = [machine["processor"], _counted(machine["cores"], "core"), machine["instruction_set"]]
    where = (
        f"{record['date']}; {', '.join(filter(None, hardware))}; mxnet {machine['mxnet']}, numpy {machine['numpy']}, "
        f"Python {machine['python']}, deeprnn {machine['deeprnn']}; "
        f"{_counted(record['threads_per_run'], 'thread')} for each run."
    )
    cards = []
    for name, groups in recipes.items():
        headline, *sentences = verdict(groups, record["perplexity"])
        cards.append(
            f'<div class="card verdict"><div class="name">{escape(name)}</div><h3>{escape(headline)}</h3>'
            f"<p>{escape(' '.join(sentences))}</p></div>"
        )
    return (
        f"<h1>Does depth pay?</h1>\n<p>{escape(compared)}</p>\n<p class=quiet><small>{escape(where)}</small></p>\n"
        f'<div class="grid">{"".join(cards)}</div>'
    )


def verdict(groups: Sequence[Record], perplexity: float) -> list[str]:
    """What the numbers of one recipe say, in sentences; the first is the headline.

    Parameters
    ----------
    groups
        Of one recipe, by depth.
    perplexity
        The one that is named in the record.
    """
    part = next((part for part in ("test", "valid") if any(group[part]["low"] for group in groups)), "train")
    median = {group["layers"]: _or_infinite(group[part]["median"]) for group in groups}
    shallow, *deeper = sorted(median)
    best = min(median, key=lambda layers: (median[layers], layers))
    worse = [layers for layers in deeper if median[layers] > median[shallow] + WORSE]
    of = {group["layers"]: group[part] for group in groups}
    said = []
    if not deeper or math.isinf(median[best]):
        headline = f"{_layers(shallow)} alone" if not deeper else "No depth learns"
        said.append(f"{_layers(best)} end{_s(best)} at a {PARTS[part]} perplexity of {_number(median[best])}.")
    elif best == shallow:
        deep = max(deeper)
        headline = "Depth does not pay"
        said.append(
            f"{_layers(shallow)} end{_s(shallow)} at a {PARTS[part]} perplexity of {_number(median[shallow])}, "
            f"and every deeper stack higher: {_layers(deep)} at {_number(median[deep])}."
        )
    else:
        apart = _or_infinite(of[best]["high"]) < _or_infinite(of[shallow]["low"])
        good = [layers for layers in deeper if not worse or layers < worse[0]]
        headline = "Depth pays" if not worse else f"Depth pays up to {_layers(max([*good, shallow]))}"
        if not good:
            headline = "Depth pays for some depths only"
        if not apart:
            headline = f"{headline}, within the spread"
        said.append(
            f"{_layers(best)} end{_s(best)} at a {PARTS[part]} perplexity of {_number(median[best])}, "
            f"{_layers(shallow)} at {_number(median[shallow])}: "
            + ("more than the seeds are apart." if apart else "no more than the seeds are apart.")
        )
        if worse:
            ends = _listed([_number(median[layers]) for layers in worse])
            said.append(f"{_listed(worse)} layers end more than {WORSE} above {_layers(shallow)}, at {ends}.")
        else:
            said.append(f"No deeper stack ends more than {WORSE} above {_layers(shallow)}.")
    said.append(_soonest(groups, perplexity))
    diverged, runs = sum(group["diverged"] for group in groups), sum(len(group["seeds"]) for group in groups)
    if diverged:
        where = _listed([group["layers"] for group in groups if group["diverged"]])
        said.append(f"{diverged} of {runs} runs diverged, with {where} layers.")
    else:
        said.append(f"None of {runs} runs diverged.")
    return [headline, *said]


def _soonest(groups: Sequence[Record], perplexity: float) -> str:
    named = f"a training perplexity of {perplexity:g}"
    reached = [group for group in groups if group["epochs_to"]["median"] is not None]
    never = [group["layers"] for group in groups if group not in reached]
    if not reached:
        return f"No depth reaches {named}."
    first = min(reached, key=lambda group: (group["epochs_to"]["median"], group["layers"]))
    said = (
        f"{_layers(first['layers'])} reach{'es' if first['layers'] == 1 else ''} {named} "
        f"{'first, ' if len(groups) > 1 else ''}after {first['epochs_to']['median']:g} epochs "
        f"and {_seconds(first['seconds_to']['median'])}"
    )
    return said + (f"; {_listed(never)} {'layer' if never == [1] else 'layers'} never." if never else ".")


# Curves.

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 390, 300, 44, 74, 12, 38
TICKS = [1 + digit * 10.0**power for power in range(-5, 0) for digit in (1, 2, 5)]
TICKS += [digit * 10.0**power for power in range(7) for digit in (2, 5, 10)]


def _curves(record: Record, colour: Mapping[int, str]) -> str:
    panels = []
    for name, groups in _recipes(record).items():
        for part in ("train", "valid"):
            if any(value is not None for run in _runs(record, name) for value in run[part]):
                title = f"{name}, {PARTS[part]} perplexity"
                panels.append(
                    f'<figure class="card"><h3>{escape(title)}</h3>'
                    f"{_curve_panel(record, name, groups, part, colour, title)}</figure>"
                )
    return (
        "<h2>Perplexity over the epochs</h2>\n<p class=quiet>Median over the seeds, and a band from the lowest to the "
        "highest. The axis is logarithmic in the loss, so that 1.01 and 1.02 are as far apart as 2 and 4.</p>\n"
        f'<div class="grid">{"".join(panels)}</div>'
    )


def _runs(record: Record, recipe: str, layers: Optional[int] = None) -> list[Record]:
    return [run for run in record["runs"] if run["recipe"] == recipe and layers in (None, run["layers"])]


def _curve_panel(
    record: Record, recipe: str, groups: Sequence[Record], part: str, colour: Mapping[int, str], title: str
) -> str:
    epochs = max(group["epochs"] for group in groups)
    curves = {
        group["layers"]: _over_seeds([run[part] for run in _runs(record, recipe, group["layers"])]) for group in groups
    }
    seen = [_nats(value) for curve in curves.values() for three in curve for value in three if math.isfinite(value)]
    low, high = min(seen) / 1.15, max(seen) * 1.15
    named = part == "train" and low < _nats(record["perplexity"]) < high

    def x(epoch: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (epoch - 1) / max(epochs - 1, 1)

    def y(value: float) -> float:
        share = math.log(min(max(_nats(value), low), high) / low) / math.log(high / low)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share

    parts = []
    last = math.inf
    for tick in TICKS:
        if low <= _nats(tick) <= high and last - y(tick) > 26:
            last = y(tick)
            parts.append(f'<path class="axis" d="M{LEFT} {last:.1f}H{WIDTH - RIGHT}"/>')
            parts.append(_label(LEFT - 8, last + 4, f"{tick:,.10g}", "end"))
    for epoch in _whole_ticks(epochs):
        parts.append(_label(x(epoch), HEIGHT - BOTTOM + 20, str(epoch), "middle"))
    parts.append(_label((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4, "epoch", "middle"))
    if named:
        at = y(record["perplexity"])
        parts.append(
            f'<path d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}" stroke="var(--quiet)" stroke-dasharray="3 4" fill="none"/>'
        )
        parts.append(_label(LEFT + 4, at - 5, f"{record['perplexity']:g}", "start"))
    ends: list[tuple[float, int]] = []
    for layers, curve in curves.items():
        dash = ' stroke-dasharray="6 3"' if list(colour).index(layers) >= COLOURS else ""
        for run in _finite_runs(curve):
            run = _thinned(run, POINTS)
            upper = [(x(epoch), y(three[2])) for epoch, three in run]
            lower = [(x(epoch), y(three[1])) for epoch, three in run]
            middle = [(x(epoch), y(three[0])) for epoch, three in run]
            parts.append(f'<path d="{_path([*upper, *reversed(lower)])}Z" fill="{colour[layers]}" fill-opacity=".16"/>')
            parts.append(
                f'<path d="{_path(middle)}" fill="none" stroke="{colour[layers]}" stroke-width="2"'
                f' stroke-linejoin="round"{dash}/>'
            )
        known = [(epoch, three[0]) for epoch, three in enumerate(curve, start=1) if math.isfinite(three[0])]
        if known:
            ends.append((y(known[-1][1]), layers))
            if len(known) < 2:
                parts.append(
                    f'<circle cx="{x(known[-1][0]):.1f}" cy="{ends[-1][0]:.1f}" r="3" fill="{colour[layers]}"/>'
                )
    for (at, layers), place in zip(sorted(ends), _apart([at for at, _ in sorted(ends)], 15, TOP, HEIGHT - BOTTOM)):
        right = WIDTH - RIGHT
        parts.append(
            f'<path d="M{right + 1} {at:.1f}L{right + 10} {place:.1f}" stroke="{colour[layers]}" fill="none"/>'
            f'<text x="{right + 13}" y="{place + 4:.1f}" style="fill:{colour[layers]};font-weight:600">'
            f"{layers} layer{'s' if layers > 1 else ''}</text>"
        )
    return _svg(WIDTH, HEIGHT, parts, title)


def _over_seeds(curves: Sequence[Sequence[Optional[float]]]) -> list[tuple[float, float, float]]:
    """Median, lowest and highest at each epoch; what a run that diverged did not reach is infinite."""
    length = max(map(len, curves))
    padded = [[_or_infinite(value) for value in curve] + [math.inf] * (length - len(curve)) for curve in curves]
    return [(statistics.median(values), min(values), max(values)) for values in zip(*padded)]


def _finite_runs(curve: Sequence[tuple[float, float, float]]) -> Iterable[list[tuple[int, tuple[float, float, float]]]]:
    """The stretches of a curve whose median is finite, with the epochs."""
    stretch = []
    for epoch, three in enumerate(curve, start=1):
        if math.isfinite(three[0]):
            stretch.append((epoch, three))
        elif stretch:
            yield stretch
            stretch = []
    if stretch:
        yield stretch


def _apart(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """The places, in rising order, moved so that they are `gap` apart, and within the bounds if there is room."""
    moved: list[float] = []
    for place in places:
        moved.append(max(place, moved[-1] + gap if moved else low))
    bound = high
    for i in reversed(range(len(moved))):
        moved[i] = min(moved[i], bound)
        bound = moved[i] - gap
    return moved


def _nats(perplexity: float) -> float:
    return max(math.log(perplexity), 1e-5)


def _whole_ticks(last: int) -> list[int]:
    step = next(step for power in range(9) for step in (10**power, 2 * 10**power, 5 * 10**power) if last / step <= 6)
    ticks = [1, *range(step, last + 1, step)] if step > 1 else list(range(1, last + 1))
    return [tick for tick in ticks if tick == 1 or tick - 1 >= step / 2]


# Numbers.


def _numbers(record: Record, colour: Mapping[int, str]) -> str:
    groups = [group for some in _recipes(record).values() for group in some]
    parts = [part for part in PARTS if any(group[part]["low"] is not None for group in groups)]
    named = f"{record['perplexity']:g}"
    heads = ["parameters", f"epochs to {named}", f"seconds to {named}", "seconds in all"]
    heads += [f"{PARTS[part]} perplexity" for part in parts]
    heads += ["test loss, nats"] if "test" in parts else []
    heads += ["diverged"]
    rows = []
    for group in groups:
        cells = ["" if group["parameters"] is None else f"{group['parameters']:,}"]
        cells += [
            _spread(group["epochs_to"], "{:g}".format, "never"),
            _spread(group["seconds_to"], _seconds, "never"),
            _spread(group["seconds"], _seconds, "–"),
        ]
        cells += [_spread(group[part], _number, "diverged") for part in parts]
        cells += [_spread(group["test_loss"], "{:.4f}".format, "diverged")] if "test" in parts else []
        cells.append(f"{group['diverged']} of {len(group['seeds'])}")
        rows.append((group, cells))
    shown = sorted({int(epoch) for group in groups for epoch in group["train_at"]})
    at = [
        (group, [_spread(group["train_at"].get(str(e), {}), _number, "diverged", absent="") for e in shown])
        for group in groups
    ]
    return (
        "<h2>Numbers</h2>\n<p class=quiet>Medians over the seeds, with the lowest and highest under them where they "
        f"differ. Epochs and seconds are those until the training perplexity is {named} or less; seconds are of "
        "training alone, with runs side by side. Training perplexity is that of the last epoch; validation and test "
        "are of the best network, chosen on validation.</p>\n"
        + _table(heads, rows, colour)
        + "\n<h3>Training perplexity after so many epochs</h3>\n"
        + _table([str(epoch) for epoch in shown], at, colour)
    )


def _table(heads: Sequence[str], rows: Sequence[tuple[Record, Sequence[str]]], colour: Mapping[int, str]) -> str:
    """Rows of one recipe and depth each; the cells are HTML."""
    lines = ["<tr><th class=left>recipe</th><th class=left>layers</th>"]
    lines += [f"<th>{escape(head)}</th>" for head in heads] + ["</tr></thead><tbody>"]
    before = None
    for group, cells in rows:
        recipe = group["recipe"]
        first = ' class="first"' if before not in (None, recipe) else ""
        name = escape(recipe) if recipe != before else ""
        before = recipe
        lines.append(f"<tr{first}><th class=left>{name}</th><td class=left>{_swatch(group, colour)}</td>")
        lines += [f"<td>{cell}</td>" for cell in cells] + ["</tr>\n"]
    return f'<div class="scroll"><table><thead>{"".join(lines)}</tbody></table></div>'


def _swatch(group: Record, colour: Mapping[int, str]) -> str:
    return f'<span class="swatch" style="background:{colour[group["layers"]]}"></span>{group["layers"]}'


def _spread(spread: Record, shown: Any, infinite: str, absent: str = "–") -> str:
    if not spread:
        return absent
    median, low, high = (
        infinite if value is None else shown(value) for value in map(spread.get, ("median", "low", "high"))
    )
    return median if low == high else f"{median}<small>{low} to {high}</small>"


# Gradients.


def _gradients(record: Record) -> str:
    groups = [group for some in _recipes(record).values() for group in some if group["diagnosis"]]
    known = [
        math.log10(value)
        for group in groups
        for row in group["diagnosis"]
        for value in row["gradient"]
        if value is not None and 0 < value < math.inf
    ]
    if not known:
        return ""
    low, high = math.floor(min(known)), max(math.ceil(max(known)), math.floor(min(known)) + 1)
    shown = ""
    for recipe, some in _recipes(record).items():
        cards = "".join(
            f'<figure class="card"><h3>{escape(title)}</h3>{_heat_map(group, low, high, title)}'
            f"{_sentences(group['diagnosis'])}</figure>\n"
            for group in some
            if group["diagnosis"]
            for title in [f"{recipe}, {_layers(group['layers'])}"]
        )
        shown += f'<div class="maps">{cards}</div>\n'
    return (
        "<h2>Which layers the gradient reaches</h2>\n<p class=quiet>Norm of the gradient of the loss by each layer's "
        "outputs, over the epochs, of the first seed; the top layer is above. Epoch 0 is before training. A stack "
        f"whose lower layers stay dark learns with its upper ones alone.</p>\n{_legend(low, high)}{shown}"
    )


def _heat_map(group: Record, low: int, high: int, title: str) -> str:
    columns, layers = _thinned(group["diagnosis"], COLUMNS), group["layers"]
    row = min(max(140 / layers, 5), 20)
    left, right, bottom = 34, 8, 36
    height = row * layers + 4 + bottom
    wide = (WIDTH - left - right) / len(columns)
    parts = []
    for i, column in enumerate(columns):
        for number, value in enumerate(column["gradient"], start=1):
            fill = "var(--none)"
            if value is not None and 0 < value < math.inf:
                fill = _heat((math.log10(value) - low) / (high - low))
            place = f'x="{left + wide * i:.2f}" y="{4 + row * (layers - number):.2f}"'
            size = f'width="{wide + 0.3:.2f}" height="{row + 0.3:.2f}"'
            said = f"epoch {column['epoch']}, layer {number}: {_scientific(value)}"
            parts.append(f'<rect {place} {size} fill="{fill}"><title>{said}</title></rect>')
    for number in sorted({1, layers}):
        parts.append(_label(left - 8, 4 + row * (layers - number + 0.5) + 4.5, str(number), "end"))
    every = max(1, math.ceil(len(columns) / 6))
    for i in range(0, len(columns), every):
        parts.append(_label(left + wide * (i + 0.5), height - bottom + 16, str(columns[i]["epoch"]), "middle"))
    parts.append(_label((left + WIDTH - right) / 2, height - 3, "epoch", "middle"))
    parts.append(
        f'<text transform="translate(10 {4 + row * layers / 2:.1f}) rotate(-90)" text-anchor="middle">'
        f"{'layer' if layers > 2 else ''}</text>"
    )
    return _svg(WIDTH, height, parts, f"gradient by layer, {title}")


def _legend(low: int, high: int) -> str:
    left, wide, steps = 8, WIDTH - 16, 64
    parts = [
        f'<rect x="{left + wide * i / steps:.2f}" y="4" width="{wide / steps + 0.3:.2f}" height="12" '
        f'fill="{_heat(i / (steps - 1))}"/>'
        for i in range(steps)
    ]
    for power in range(high, low - 1, -max(1, math.ceil((high - low) / 5))):
        anchor = "start" if power == low else "end" if power == high else "middle"
        at = left + wide * (power - low) / (high - low)
        parts.append(_label(at, 34, f"10{str(power).translate(RAISED)}", anchor))
    return f'<div class="legend">{_svg(WIDTH, 40, parts, "scale of the gradient")}</div>\n'


def _heat(share: float) -> str:
    """The colour at a share of the scale."""
    place = min(max(share, 0.0), 1.0) * (len(HEAT) - 1)
    i = min(int(place), len(HEAT) - 2)
    a, b = (tuple(int(HEAT[k][j : j + 2], 16) for j in (1, 3, 5)) for k in (i, i + 1))
    return "#" + "".join(f"{round(p + (q - p) * (place - i)):02x}" for p, q in zip(a, b))


def _sentences(diagnosis: Sequence[Record]) -> str:
    first, last = diagnosis[0], diagnosis[-1]
    parts = []
    for row in [first] if first is last else [first, last]:
        when = "Before training" if row["epoch"] == 0 else f"After epoch {row['epoch']}"
        items = "".join(f"<li>{escape(sentence)}</li>" for sentence in row["sentences"])
        said = f"<ul>{items}</ul>" if items else "nothing is wrong."
        parts.append(f"<div><small>{when}: </small>{said if items else f'<small>{said}</small>'}</div>")
    return "".join(parts)


# Texts.


def _texts(record: Record, colour: Mapping[int, str]) -> str:
    groups = [group for some in _recipes(record).values() for group in some if group["texts"]]
    if not groups:
        return ""
    corpus, window = record["corpus"], record["window"]
    allowed = corpus["repeated"] + ALLOWED
    ways = list(dict.fromkeys(text["way"] for group in groups for text in group["texts"]))
    rows = []
    for group in groups:
        texts = {text["way"]: text for text in group["texts"]}
        rows.append((group, [_measures(texts[way], allowed) if way in texts else "" for way in ways]))
    shown = ""
    for group in groups:
        quoted = "".join(
            f"<div class=name>{escape(text['way'])}</div><pre>{escape(text['text'][:QUOTED])}</pre>"
            for text in group["texts"]
            if "text" in text
        )
        if quoted:
            shown += (
                f"<details><summary>{escape(group['recipe'])}, {_layers(group['layers'])}</summary>{quoted}</details>\n"
            )
    return (
        f"<h2>What they write</h2>\n<p class=quiet>Texts of {groups[0]['texts'][0]['characters']:,} characters. First, "
        f"of the windows of {window} characters, the share that the same text had before: it goes round in circles. "
        "Below, the share that stands in the training text word for word, and the longest run that does, in "
        f"characters: it recites. The training text repeats {corpus['repeated']:.1%} of its own windows over its first "
        f"{corpus['characters']:,} characters; <span class=over>marked</span> is what is more than "
        f"{100 * ALLOWED:.0f} points above that. Greedy takes the most probable symbol each time; the penalty is on "
        "repeats, by their length.</p>\n" + _table(ways, rows, colour) + "\n" + shown
    )


def _measures(text: Record, allowed: float) -> str:
    over = ' class="over"' if text["repeated"] > allowed else ""
    copied = f"{text['copied']:.1%} copied, longest {text['longest']:,}"
    return f"<span{over}>{text['repeated']:.1%} again</span><small>{copied}</small>"


# Again.


def _again(record: Record) -> str:
    settings = record["settings"]
    names = list(next(iter(settings.values())))
    head = (
        "<tr><th class=left>option</th>" + "".join(f"<th class=left>{escape(name)}</th>" for name in settings) + "</tr>"
    )
    rows = ""
    for name in names:
        values = [settings[recipe].get(name) for recipe in settings]
        mark = "th" if any(value != values[0] for value in values) else "td"
        rows += (
            f"<tr><{mark} class=left>{escape(name)}</{mark}>"
            + "".join(f"<{mark} class=left>{escape(_option(value))}</{mark}>" for value in values)
            + "</tr>\n"
        )
    command = record["command"].replace(" --", " \\\n    --")
    return (
        "<h2>How to run it again</h2>\n<p class=quiet>The same command goes on with a study that was stopped.</p>\n"
        f"<pre class=command>{escape(command)}</pre>\n"
        f"<details><summary>What each recipe is</summary>"
        f'<div class="scroll"><table><thead>{head}</thead><tbody>{rows}</tbody></table></div></details>\n'
        f"<p class=quiet><small>SHA-256 of the text as read: {escape(record['corpus']['sha256'])}</small></p>"
    )


def _option(value: Any) -> str:
    if value is None:
        return "all"
    if isinstance(value, list):
        return ", ".join(map(_option, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


# Words and marks.


def _svg(width: float, height: float, parts: Iterable[str], title: str) -> str:
    return f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'


def _label(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _path(points: Sequence[Point]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _thinned(items: Sequence[Any], most: int) -> list[Any]:
    """At most `most` of the items, evenly, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def _or_infinite(value: Optional[float]) -> float:
    return math.inf if value is None else value


def _number(value: float) -> str:
    if math.isinf(value):
        return "infinity"
    return f"{value:.3f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def _scientific(value: Optional[float]) -> str:
    return "not finite" if value is None else f"{value:.1e}"


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value < 100 else f"{value:,.0f} s"


def _layers(layers: int) -> str:
    return f"{layers} layer{'s' if layers > 1 else ''}"


def _s(count: int) -> str:
    """Of a verb."""
    return "s" if count == 1 else ""


def _counted(count: Optional[int], what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _listed(items: Iterable[Union[str, int]]) -> str:
    """``1, 2 and 4``."""
    *most, last = map(str, items)
    return f"{', '.join(most)} and {last}" if most else last
