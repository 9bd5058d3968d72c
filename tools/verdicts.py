"""Verdicts of a study of depth, in sentences.

A verdict compares medians with the spread over seeds, so it needs at least `MIN_SEEDS` seeds. Its heading names the
measured text, training or held-out, and whether the networks are of equal size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from .wording import count_of, layer_count, listed, perplexity, seconds

__all__ = ["MIN_SEEDS", "PART_NAMES", "verdict"]

Group = Mapping[str, Any]

PART_NAMES = {"train": "training", "valid": "validation", "test": "test"}

MIN_SEEDS = 3
"""Seeds below which the spread is not meaningful."""

WORSE = 0.01
"""A deeper stack is worse if its perplexity exceeds that of one layer by more than this."""

EQUAL_SIZE = 0.05
"""Networks are of equal size if the numbers of their parameters differ by no more than this share of the smallest."""


def verdict(groups: Sequence[Group], goal: float) -> list[str]:
    """The heading and then the sentences about one recipe.

    Parameters
    ----------
    groups
        The depths of one recipe, shallow ones first.
    goal
        The training perplexity for which epochs and seconds were counted.
    """
    part = next((part for part in ("test", "valid") if any(group[part]["low"] for group in groups)), "train")
    median = {group["layers"]: _or_infinite(group[part]["median"]) for group in groups}
    shallow, *deeper = sorted(median)
    best = min(median, key=lambda layers: (median[layers], layers))
    worse = [layers for layers in deeper if median[layers] > median[shallow] + WORSE]
    seeds = min(len(group["seeds"]) for group in groups)
    where = f"on {'training' if part == 'train' else 'held-out'} text{_size(groups)}"

    def ends(layers: int, more: str = "") -> str:
        verb = "ends" if layers == 1 else "end"
        return f"{layer_count(layers)} {verb} at a {PART_NAMES[part]} perplexity of {perplexity(median[layers])}{more}"

    sentences = []
    if not deeper:
        headline = f"{layer_count(shallow)} alone"
        sentences.append(ends(best, "."))
    elif math.isinf(median[best]):
        headline = "No depth learns"
    elif seeds < MIN_SEEDS:
        headline = f"No verdict from {count_of(seeds, 'seed')}, {where}"
        if best == shallow:
            deep = max(deeper)
            others = f", every deeper stack higher: {layer_count(deep)} at {perplexity(median[deep])}."
        else:
            others = f", {layer_count(shallow)} at {perplexity(median[shallow])}."
        sentences.append(ends(best, others))
        sentences.append(f"Whether that is more than seeds differ by takes {MIN_SEEDS} seeds or more.")
    elif best == shallow:
        deep = max(deeper)
        headline = f"Depth does not pay {where}"
        sentences.append(
            ends(shallow, f", and every deeper stack higher: {layer_count(deep)} at {perplexity(median[deep])}.")
        )
    else:
        spread = {group["layers"]: group[part] for group in groups}
        apart = _or_infinite(spread[best]["high"]) < _or_infinite(spread[shallow]["low"])
        headline = f"{_extent(shallow, deeper, worse)} {where}{'' if apart else ', within the spread'}"
        sentences.append(
            ends(best, f", {layer_count(shallow)} at {perplexity(median[shallow])}: ")
            + ("more than the seeds are apart." if apart else "no more than the seeds are apart.")
        )
        if worse:
            values = listed([perplexity(median[layers]) for layers in worse])
            sentences.append(f"{listed(worse)} layers end more than {WORSE} above {layer_count(shallow)}, at {values}.")
        else:
            sentences.append(f"No deeper stack ends more than {WORSE} above {layer_count(shallow)}.")
    sentences.append(_first_to_reach(groups, goal))
    sentences.append(_divergence(groups))
    return [headline, *sentences]


def _extent(shallow: int, deeper: Sequence[int], worse: Sequence[int]) -> str:
    """How far depth pays: for all depths, up to one, or for some."""
    good = [layers for layers in deeper if not worse or layers < worse[0]]
    if not good:
        return "Depth pays for some depths only"
    return f"Depth pays up to {layer_count(max([*good, shallow]))}" if worse else "Depth pays"


def _size(groups: Sequence[Group]) -> str:
    sizes = [group["parameters"] for group in groups if group["parameters"] is not None]
    if len(sizes) < 2:
        return ""
    return ", at equal size" if max(sizes) <= (1 + EQUAL_SIZE) * min(sizes) else ", at unequal size"


def _first_to_reach(groups: Sequence[Group], goal: float) -> str:
    named = f"a training perplexity of {goal:g}"
    reached = [group for group in groups if group["epochs_to"]["median"] is not None]
    never = [group["layers"] for group in groups if group not in reached]
    if not reached:
        return f"No depth reaches {named}."
    first = min(reached, key=lambda group: (group["epochs_to"]["median"], group["layers"]))
    sentence = (
        f"{layer_count(first['layers'])} reach{'es' if first['layers'] == 1 else ''} {named} "
        f"{'first, ' if len(groups) > 1 else ''}after {_epochs(first['epochs_to']['median'])} "
        f"and {seconds(first['seconds_to']['median'])}"
    )
    return sentence + (f"; {listed(never)} {'layer' if never == [1] else 'layers'} never." if never else ".")


def _epochs(count: float) -> str:
    return f"{count:g} epoch{'' if count == 1 else 's'}"


def _divergence(groups: Sequence[Group]) -> str:
    diverged, runs = sum(group["diverged"] for group in groups), sum(len(group["seeds"]) for group in groups)
    if not diverged:
        return f"None of {count_of(runs, 'run')} diverged."
    depths = [group["layers"] for group in groups if group["diverged"]]
    layers = f"{listed(depths)} {'layer' if depths == [1] else 'layers'}"
    return f"{diverged} of {count_of(runs, 'run')} diverged, with {layers}."


def _or_infinite(value: Optional[float]) -> float:
    return math.inf if value is None else value
