"""`deeprnn export`: a trained network for use elsewhere."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

from .._util.files import read_json, read_regular
from ..config import ExportConfig, RunConfig, select, spelled
from .console import argument, command, show
from .runs import open_run, use_threads

if TYPE_CHECKING:
    from ..train.checkpoint import Checkpoint

__all__ = ["build_export"]

FIGURES = ("train_loss", "valid_loss", "test_loss", "epochs", "seconds")
"""The values of a run's summary that the card shows."""


def build_export(given: Mapping[str, Any]) -> Callable[[], int]:
    """Check the arguments, load the network and write the folder; the result lists its files."""
    config = select(ExportConfig, given)
    folder = Path(given["run"])
    use_threads(0)
    from ..export import FORMATS, export

    net, vocab, run, best = open_run(folder, given.get("plugin"))
    assert config.out is not None
    # Here, not in the result: errors in the network or the folder are the user's to correct (exit code 2).
    out = export(
        net,
        config.out,
        FORMATS if config.format == "all" else [config.format],
        vocabulary=vocab,
        unit=run.data.unit,
        training=trained_on(folder, run, best),
    )

    def work() -> int:
        for path in sorted(out.iterdir()):
            show(f"{path.stat().st_size:>12,}  {path}")
        show("generate text: " + command("generate", argument(out)))
        return 0

    return work


def trained_on(folder: Path, run: RunConfig, best: Checkpoint) -> dict[str, Any]:
    """What the card of a run shows: its command, its text, its losses in nats per symbol.

    Raises
    ------
    ValueError
        If the summary or the checkpoint is damaged.
    """
    # Without the paths, which would name folders of this machine.
    name = ",".join(Path(part.strip()).name for part in run.data.corpus.split(","))
    defaults, options = RunConfig().to_mapping(), {**run.to_mapping(), "corpus": name}
    changed = {option: value for option, value in options.items() if option != "out" and value != defaults[option]}
    place = best.position.to_mapping()
    sha256 = best.state.get("corpus_sha256")
    if not isinstance(sha256, str):
        raise ValueError(f"{best.path} is damaged: its corpus_sha256 is {str(sha256)[:100]}")
    summary: dict[str, Any] = {}
    path = folder / "summary.json"
    if path.exists():
        content = read_regular(path, follow=True)
        try:
            summary = read_json(content)
        except ValueError as error:
            raise ValueError(f"{path} is damaged: {error}") from error
    if summary.get("best_epoch") != place["best_epoch"]:
        summary = {}  # the run has gone on since, and has not come to its end
    return {
        "command": shlex.join(["deeprnn", "train", *spelled(changed)]),
        "corpus": name,
        "corpus_sha256": sha256,
        **{key: place[key] for key in ("best_epoch", "best_loss") if best.best},
        **{figure: summary[figure] for figure in FIGURES if figure in summary},
        "data": {**asdict(run.data), "split": list(run.data.split), "corpus": name},
    }
