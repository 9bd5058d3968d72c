"""A profile of a case: the operators of one call and their times, by `mx.profiler`, in a new process."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import mxnet as mx

from .contestants import Case, Here, Problem
from .processes import alone

__all__ = ["profile"]

PROFILED_SECONDS = 1.0
"""Time that is profiled: as many calls as fill it."""


def profile(case: Case, work: str) -> dict[str, Any]:
    """The operators on which this package's graph of a case spends its time, by `mx.profiler`, in a new process.

    Without static_shape: with it, MXNet runs its operators in bulk, and so times them in bulk.

    Returns
    -------
    dict
        Of one call: its ``seconds`` under the profiler, and the ``operators``, longest first: ``name``, ``count``,
        ``milliseconds`` and ``share`` of the time of all of them.
    """
    return alone(_profile, case, work)


def _profile(case: Case, work: str) -> dict[str, Any]:
    contestant = Here("deeprnn", Problem.draw(case), {"static_alloc": True})
    contestant.time(work, 1)
    calls = max(1, round(PROFILED_SECONDS / contestant.time(work, 1)))
    with tempfile.TemporaryDirectory() as folder:
        mx.profiler.set_config(aggregate_stats=True, profile_all=True, filename=str(Path(folder) / "trace.json"))
        mx.profiler.set_state("run")
        seconds = contestant.time(work, calls)
        mx.profiler.set_state("stop")
        times = json.loads(mx.profiler.dumps(reset=True, format="json"))["Time"]["operator"]
        mx.profiler.dump()  # otherwise written at the end of the process, when the folder is gone
    times.pop("DeleteVariable", None)  # the engine's, not the graph's
    total = sum(of["Total"] for of in times.values())
    operators = [
        {
            "name": name,
            "count": of["Count"] / calls,
            "milliseconds": of["Total"] / calls,
            "share": of["Total"] / total,
        }
        for name, of in sorted(times.items(), key=lambda item: -item[1]["Total"])
    ]
    return {"seconds": seconds, "operators": operators}
