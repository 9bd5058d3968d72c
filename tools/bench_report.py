"""Records of benchmarks as means, as Markdown, as a section of a document, and as a picture."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Optional

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator

from . import usage
from .bench import ONE_STEP
from .clock import Spread
from .contestants import WORK_TITLES, WORKS, Case
from .tables import markdown_table

__all__ = ["brief", "milliseconds", "picture", "report", "sections", "summary", "where"]

MAIN = ("gluon", "pytorch")
"""The contestants of the short table."""

OPERATORS_SHOWN = 6

LARGE_UNITS, LARGE_BATCH = 512, 32
"""From these sizes on, matrix products ought to take most of the time."""


def summary(cases: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The means on which a verdict rests, by work and by the contestant that ours is compared with.

    Returns
    -------
    dict
        By work: ``ratios`` (by name: ``mean``, geometric, over all cases but `ONE_STEP`; ``worst`` and the case of it;
        ``one_step``; ``busy``, the cases in the mean whose ratios are too far apart for a verdict) and
        ``share_of_limit``, the geometric mean over the cases of 512 and more units at batch 32 and more, or None.
    """
    one_step = Case(*ONE_STEP).name
    result: dict[str, Any] = {}
    for work in WORKS:
        done = [case for case in cases if work in case]
        names = list(dict.fromkeys(name for case in done for name in case[work]["ratios"]))
        ratios = {}
        for name in names:
            of = {case["name"]: Spread(**case[work]["ratios"][name]) for case in done if name in case[work]["ratios"]}
            medians = {case: spread.median for case, spread in of.items() if case != one_step}
            worst = max(medians, key=lambda case: medians[case], default=None)
            ratios[name] = {
                "mean": _geometric_mean(medians.values()),
                "worst": None if worst is None else {"case": worst, "ratio": medians[worst]},
                "one_step": of[one_step].median if one_step in of else None,
                "busy": [case for case, spread in of.items() if case in medians and not spread.steady],
            }
        large = [
            case[work]["limit"] / next(iter(case[work]["seconds"].values()))["median"]
            for case in done
            if case["case"]["hidden_size"] >= LARGE_UNITS and case["case"]["batch_size"] >= LARGE_BATCH
        ]
        if done:
            result[work] = {"ratios": ratios, "share_of_limit": _geometric_mean(large)}
    return result


def _geometric_mean(values: Iterable[float]) -> Optional[float]:
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs)) if logs else None


def report(record: Mapping[str, Any]) -> str:
    """One record as Markdown, as far as it goes: times and ratios, what limits where the built-in layer is faster,
    first calls and memory, threads, uses, lengths, the language model."""
    cases = record["cases"]
    parts = [f"**{record['cell']}** ({where(record)})"]
    parts += [markdown_table(_times(cases, [work])) for work in WORKS if any(work in case for case in cases)]
    parts += _profiles(cases)
    costs = [case for case in cases if "cost" in case]
    if costs:
        names = list(costs[0]["cost"])
        rows = [["First call, s; peak memory, MB", *names]]
        for case in costs:
            rows.append([_title(case), *(_once(case["cost"].get(name)) for name in names)])
        parts.append(markdown_table(rows))
    parts += _scaling(cases)
    if record.get("usage"):
        parts += [markdown_table(_uses(record["usage"])), markdown_table(_usage(record["usage"]))]
    if record.get("lengths"):
        parts.append(markdown_table(_lengths(record["lengths"])))
    if record.get("language_model"):
        parts.append(markdown_table(_language_model(record["language_model"])))
    return "\n\n".join(parts) + "\n"


def _profiles(cases: Sequence[Mapping[str, Any]]) -> list[str]:
    """The operators of one call, in cases that were profiled."""
    profiles = [
        (case, work, case["profile"][work]) for work in WORKS for case in cases if work in case.get("profile", {})
    ]
    if not profiles:
        return []
    rows = [["What limits a case above 1.0: operators of one call", "count", "ms", "share"]]
    for case, work, profile in profiles:
        rows.append([f"**{_title(case)}**: {WORK_TITLES[work]}", *_total(profile["operators"]), ""])
        rows += [[of["name"], *_total([of]), f"{of['share']:.0%}"] for of in profile["operators"][:OPERATORS_SHOWN]]
        rest = profile["operators"][OPERATORS_SHOWN:]
        if rest:
            rows.append(["others", *_total(rest), f"{sum(of['share'] for of in rest):.0%}"])
    return [markdown_table(rows)]


def _scaling(cases: Sequence[Mapping[str, Any]]) -> list[str]:
    """How many times as fast with several threads as with one."""
    scaled = [case for case in cases if "scaling" in case]
    if not scaled:
        return []
    works = [work for work in (*WORKS, "product") if work in scaled[0]["scaling"]]
    titles = {**WORK_TITLES, "product": "the matrix product itself"}
    rows = [[f"{scaled[0]['scaling']['threads']} threads over one: times as fast", *(titles[work] for work in works)]]
    for case in scaled:
        rows.append([_title(case), *(f"{case['scaling'][work]['times_as_fast']:.2f}" for work in works)])
    return [markdown_table(rows)]


def _usage(uses: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The worst ratio of each way of use."""
    rows = [["how it is used", "sizes", *(f"{title}, worst" for title in WORK_TITLES.values()), "refused"]]
    for row in usage.summary(uses):
        worst = [
            "" if row[work] is None else "{ratio:.2f} ({units} units, batch {batch_size})".format(**row[work])
            for work in WORKS
        ]
        rows.append([row["way"], str(row["count"]), *worst, str(row["refused"])])
    return rows


def _uses(uses: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """All ratios."""
    rows = [["how it is used, over the built-in layer used in the same way", *WORK_TITLES.values()]]
    for use in uses:
        if "refused" in use:
            cells = [f"{name} refuses" for name in use["refused"]]
            cells = (cells * len(WORKS))[: len(WORKS)]
        else:
            cells = [_ratio(use[work]["ratio"]) if work in use else "not the same function" for work in WORKS]
        rows.append([use["name"], *cells])
    return rows


def _lengths(found: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Ratios of the first and the second round."""
    one = found[0]
    heads = [f"{title}, {name} round" for title in WORK_TITLES.values() for name in ("first", "second")]
    rows = [[f"{one['count']} lengths up to {one['longest']}, over the built-in layer", *heads]]
    for each in found:
        cells: list[str] = []
        for work in WORKS:
            if "refused" in each[work]:
                cells += ["refused", "refused"]
            else:
                cells += [f"{each[work][name]['ratio']:.2f}" for name in ("first", "second")]
        rows.append([f"batch {each['batch_size']}, {each['mode']}", *cells])
    return rows


def sections(record: Mapping[str, Any]) -> dict[str, str]:
    """What of a record goes into a document, by the mark around it, such as ``bench:rnn``."""
    found = {}
    if record.get("usage"):
        found[f"usage:{record['cell']}"] = markdown_table(_usage(record["usage"]))
    if record.get("lengths"):
        found[f"lengths:{record['cell']}"] = markdown_table(_lengths(record["lengths"]))
    if record["cases"]:
        grid = record.get("grid", "main")
        found[f"bench:{record['cell']}" if grid == "main" else f"bench:{record['cell']}:{grid}"] = brief(record)
    elif record.get("language_model"):
        found["bench:language-model"] = brief(record)
    return found


def brief(record: Mapping[str, Any]) -> str:
    """One record as a README shows it: the times against the built-in layer and PyTorch, and the language model."""
    parts = [markdown_table(_times(record["cases"], WORKS, MAIN))] if record["cases"] else []
    if record.get("language_model"):
        parts.append(markdown_table(_language_model(record["language_model"])))
    return "\n\n".join(parts)


def _times(
    cases: Sequence[Mapping[str, Any]], works: Sequence[str], names: Optional[Sequence[str]] = None
) -> list[list[str]]:
    """By work: our time, its ratio to that of each other (or those of `names`), the limit as a share of our time."""
    rows = [["input, hidden, layers, T, N"], *([_title(case)] for case in cases)]
    mean, worst = ["geometric mean, without the one step"], ["the worst of them"]
    large = [f"geometric mean, {LARGE_UNITS} units and batch {LARGE_BATCH} or more"]
    for work in works:
        done = [case for case in cases if work in case]
        if not done:
            continue
        peers = dict.fromkeys(name for case in done for name in case[work]["ratios"] if names is None or name in names)
        rows[0] += [f"{WORK_TITLES[work]}, ms", *(f"/ {name}" for name in peers), "limit"]
        for row, case in zip(rows[1:], cases):
            if work not in case:
                row += ["", *("" for _ in peers), ""]
                continue
            seconds = next(iter(case[work]["seconds"].values()))["median"]
            row.append(milliseconds(seconds))
            row += [_ratio(case[work]["ratios"].get(name)) for name in peers]
            row.append(f"{case[work]['limit'] / seconds:.0%}")
        means = summary(cases)[work]
        mean += ["", *(_mean(means["ratios"][name]) for name in peers), ""]
        worst += ["", *(_worst(means["ratios"][name]) for name in peers), ""]
        share = means["share_of_limit"]
        large += ["", *("" for _ in peers), "" if share is None else f"{share:.0%}"]
    return [*rows, mean, worst, *([large] if any(large[1:]) else [])]


def _title(case: Mapping[str, Any]) -> str:
    return str(case["name"]).replace(",", ", ")


def milliseconds(seconds: float) -> str:
    """Three digits; from a second on, whole ones."""
    return f"{1e3 * seconds:,.0f}" if seconds >= 1 else f"{1e3 * seconds:.3g}"


def _total(operators: Sequence[Mapping[str, Any]]) -> list[str]:
    return [f"{sum(of[key] for of in operators):{form}}" for key, form in (("count", ",.0f"), ("milliseconds", ".3g"))]


def _language_model(model: Mapping[str, Any]) -> list[list[str]]:
    rows = [[f"training a language model, {model['shape']}", "characters/s", "/ the book's loop"]]
    for name, speed in model["characters_per_second"].items():
        rows.append([name, f"{speed:,.0f}", _ratio(model["ratios"].get(name))])
    rows.append(["the limit: matrix products of the first", f"{model['limit']:,.0f}", ""])
    return rows


def where(record: Mapping[str, Any]) -> str:
    """What it was measured on, and when, in one line."""
    it = record["machine"]
    torch = next((case["pytorch"] for case in record.get("cases", ()) if "pytorch" in case), None)
    threads = f", OMP_NUM_THREADS={it['threads']}" if it["threads"] else ""
    native = record.get("native") or {}
    if native:
        threads += f", native operator ({native['instruction_set']})" if native["available"] else ", no native operator"
    versions = f"mxnet {it['mxnet']}" + (f", PyTorch {torch['version']}" if torch else "")
    cores = f"{it['cores']} core{'s' if it['cores'] != 1 else ''}"
    return f"{it['processor']}, {cores}, {it['instruction_set']}{threads}; {versions}; {record['date']}"


def _ratio(spread: Optional[Mapping[str, Any]]) -> str:
    if spread is None:
        return ""
    it = Spread(**spread)
    return f"{it.median:.2f}" if it.steady else f"busy: {it.low:.2f} to {it.high:.2f}"


def _mean(of: Mapping[str, Any]) -> str:
    if of["mean"] is None:
        return ""
    return f"busy in {len(of['busy'])}" if of["busy"] else f"{of['mean']:.2f}"


def _worst(of: Mapping[str, Any]) -> str:
    return f"{of['worst']['ratio']:.2f}" if of["worst"] and not of["busy"] else ""


def _once(cost: Optional[Mapping[str, Any]]) -> str:
    if cost is None:
        return ""
    return f"{cost['first_call']:.2f}; " + ("?" if cost["memory"] is None else f"{cost['memory'] / 1e6:.0f}")


def picture(records: Sequence[Mapping[str, Any]]) -> Figure:
    """The ratio of times in each case, with its quartiles; hollow where the machine was busy.

    One row of panels for each record, one column for each work.

    Raises
    ------
    ValueError
        If no record has times.
    """
    works = [work for work in WORKS if any(work in case for record in records for case in record["cases"])]
    if not works:
        raise ValueError(f"there is nothing to draw: no record holds {' or '.join(WORKS)}")
    heights = [max(len(record["cases"]), 2) for record in records]
    figure = Figure(figsize=(11, 1.8 + sum(0.6 + 0.32 * height for height in heights)), layout="constrained")
    panels = figure.subplots(len(records), len(works), sharex="col", squeeze=False, height_ratios=heights)
    peers = list(
        dict.fromkeys(
            name
            for record in records
            for case in record["cases"]
            for w in works
            for name in case.get(w, _NONE)["ratios"]
        )
    )
    for row, record in zip(panels, records):
        for panel, work in zip(row, works):
            for y, case in enumerate(record["cases"]):
                for i, name in enumerate(peers):
                    if name in case.get(work, _NONE)["ratios"]:
                        spread = Spread(**case[work]["ratios"][name])
                        at = y + 0.6 * ((i + 0.5) / len(peers) - 0.5)
                        panel.plot([spread.low, spread.high], [at, at], color=f"C{i}", linewidth=1.5)
                        inside = f"C{i}" if spread.steady else "white"
                        panel.plot(spread.median, at, "o", color=f"C{i}", markerfacecolor=inside, markersize=4.5)
            panel.axvline(1, color="0.4", linewidth=1)
            panel.set_xscale("log", base=2)
            panel.xaxis.set_major_formatter(
                FuncFormatter(lambda value, _: f"{value:g}" if value >= 1 else f"1/{1 / value:g}")
            )
            panel.xaxis.set_minor_locator(NullLocator())
            panel.set_ylim(len(record["cases"]) - 0.5, -0.5)
            panel.set_yticks(range(len(record["cases"])), [_title(case) for case in record["cases"]], fontsize=8)
            if panel is not row[0]:
                panel.tick_params(labelleft=False)
            panel.set_title(f"{record['cell']}: {WORK_TITLES[work]}", fontsize=10)
            panel.grid(axis="x", color="0.9")
            panel.set_axisbelow(True)
            panel.spines[["top", "right"]].set_visible(False)
        row[0].set_ylabel("input, hidden, layers, T, N", fontsize=8)
    for panel in panels[-1]:
        panel.set_xlabel("time of deeprnn / time of the other: left of 1 is faster")
    marks = [Line2D([], [], marker="o", color=f"C{i}", label=name) for i, name in enumerate(peers)]
    marks.append(Line2D([], [], marker="o", color="0.4", markerfacecolor="white", label="the machine was busy"))
    figure.legend(handles=marks, loc="outside lower center", ncols=len(marks), frameon=False)
    figure.suptitle(where(records[0]), fontsize=8)
    return figure


_NONE: Mapping[str, Any] = {"ratios": {}}
