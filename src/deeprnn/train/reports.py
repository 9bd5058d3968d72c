"""Reports of a run: metrics per epoch (JSON lines), a picture of the curves, TensorBoard events."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Optional, Union

from .._util.extras import extra
from .._util.files import write_bytes_atomic, write_text_atomic

if TYPE_CHECKING:
    from .progress import EpochReport

__all__ = ["EventWriter", "append_metrics", "append_row", "curves", "read_metrics", "trim_metrics"]

PathLike = Union[str, "os.PathLike[str]"]

TRAINING, VALIDATION, QUIET = "#3b6ea8", "#d1603d", "#6b6b6b"  # distinguishable with colour blindness too


def append_metrics(path: PathLike, report: EpochReport) -> None:
    """Append the report of an epoch to a file of metrics, see `append_row`."""
    append_row(path, dataclasses.asdict(report))


def append_row(path: PathLike, row: Mapping[str, Any]) -> None:
    """Append a row about epoch ``row["epoch"]`` to a file of one JSON object per line.

    NaN and infinity are written as null, as JSON has neither. Rows of this epoch and of later ones are replaced, as a
    resumed run may repeat epochs.
    """
    kept = [earlier for earlier in _rows(Path(path)) if earlier["epoch"] < row["epoch"]]
    write_text_atomic(path, "".join(json.dumps(each, allow_nan=False) + "\n" for each in [*kept, _finite(row)]))


def trim_metrics(path: PathLike, epochs: int) -> None:
    """Keep the rows of the first `epochs` epochs: a resumed run trains the later ones again, perhaps differently."""
    rows = _rows(Path(path))
    kept = [row for row in rows if row["epoch"] <= epochs]
    if kept != rows:
        write_text_atomic(path, "".join(json.dumps(each, allow_nan=False) + "\n" for each in kept))


def read_metrics(path: PathLike) -> list[dict[str, Any]]:
    """The rows of a file of metrics, by epoch; an incomplete last line is ignored.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a line other than the last is not JSON.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"{path} is missing: a run writes it after its first epoch")
    return _rows(Path(path))


def curves(metrics: Sequence[Mapping[str, Any]], path: PathLike, title: str = "") -> None:
    """Plot perplexity and learning rate over the epochs as a PNG file.

    Parameters
    ----------
    metrics
        From `read_metrics`; at least one epoch.
    path
        The file to write.
    title
        Such as "tinyshakespeare, rnn 2 x 256, adam 0.002".

    Raises
    ------
    ValueError
        If there is no epoch.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    if not metrics:
        raise ValueError("metrics must have at least one epoch, got none")
    epochs = [row["epoch"] for row in metrics]
    figure = Figure(figsize=(8, 5.4), dpi=150, layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e4e4e4", linewidth=0.8)
        axes.set_axisbelow(True)

    for part, label, colour in (("train", "running training", TRAINING), ("valid", "validation", VALIDATION)):
        values = _column(metrics, f"{part}_perplexity")
        if not all(map(math.isnan, values)):
            _draw(upper, epochs, values, color=colour, label=f"{label}, {values[-1]:.4g} at the end")
    best = metrics[-1]["best_epoch"]
    for row in metrics:
        if row["epoch"] == best and row["valid_perplexity"] is not None:
            value = row["valid_perplexity"]
            upper.plot(best, value, "o", markersize=8, color=VALIDATION, markerfacecolor="white", markeredgewidth=1.6)
            upper.plot(
                [], [], "o", color=VALIDATION, markerfacecolor="white", label=f"best, {value:.4g} at epoch {best}"
            )
    _scale_perplexity(upper)
    upper.set_ylabel("perplexity per token")
    upper.legend(frameon=False, loc="best")
    # Names of files are in the title: a dollar sign must not begin a formula, nor any character be an error.
    shown = "".join(character if character.isprintable() else "?" for character in title)
    upper.set_title(shown, loc="left", fontsize=11, pad=10, parse_math=False)

    _draw(lower, epochs, _column(metrics, "learning_rate"), color=QUIET)
    lower.set_ylim(bottom=0)
    lower.set_ylabel("learning rate")
    lower.set_xlabel("epoch")
    lower.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    figure.align_ylabels()
    picture = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)  # the font lacks a script
        figure.savefig(picture, format="png")
    write_bytes_atomic(path, picture.getvalue())


class EventWriter:
    """Writes TensorBoard events of a run to `folder`, one value per measure and epoch; a context manager.

    Raises
    ------
    ValueError
        If tensorboardX is not installed.
    """

    def __init__(self, folder: PathLike) -> None:
        self._writer = extra("tensorboardX", "tensorboard").SummaryWriter(os.fspath(folder))

    def __enter__(self) -> EventWriter:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._writer.close()

    def add(self, report: EpochReport) -> None:
        """Write the measures of one epoch."""
        for name, value in dataclasses.asdict(report).items():
            if name not in ("epoch", "step") and value is not None:
                self._writer.add_scalar(name, value, report.epoch)
        self._writer.flush()


def _rows(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            if number < len(lines):
                raise ValueError(f"{path}, line {number} is not JSON: {error}") from error
    return rows


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _column(metrics: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    """A measure over the epochs; NaN, a gap in the curve, where it is missing."""
    return [math.nan if row[name] is None else row[name] for row in metrics]


def _draw(axes: Any, epochs: Sequence[int], values: Sequence[float], **style: Any) -> None:
    axes.plot(epochs, values, linewidth=1.8, marker="o" if len(epochs) <= 25 else "", markersize=3.5, **style)


def _scale_perplexity(axes: Any) -> None:
    """Plain numbers on the axis, and a logarithmic scale if the curves span more than a factor of four."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    values = [value for line in axes.lines for value in line.get_ydata() if math.isfinite(value)]
    if values and max(values) > 4 * min(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
