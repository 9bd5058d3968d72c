"""Tables as text, by tabulate: Markdown for documents, aligned columns for a terminal; and sections of a document."""

from __future__ import annotations

from collections.abc import Sequence

import tabulate

__all__ = ["fill", "markdown_table", "terminal_table"]

# By default tabulate makes each column two characters wider than its heading.
tabulate.MIN_PADDING = 0
# Or the text of a table would depend on whether wcwidth is installed.
tabulate.WIDE_CHARS_MODE = False


def _line_below_header(widths: Sequence[int], alignments: Sequence[str]) -> str:
    cells = [
        "-" * (width - 3) + ":" if alignment == "right" else "-" * (width - 2)
        for width, alignment in zip(widths, alignments)
    ]
    return f"| {' | '.join(cells)} |"


_ROW = tabulate.DataRow("|", "|", "|")
_MARKDOWN = tabulate.TableFormat(
    lineabove=None,
    linebelowheader=_line_below_header,
    linebetweenrows=None,
    linebelow=None,
    headerrow=_ROW,
    datarow=_ROW,
    padding=1,
    with_header_hide=None,
)
"""GitHub's Markdown. tabulate's own "github" marks no alignment, and its "pipe" marks the default one as well."""


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """A table whose first row is the heading; the first column is aligned left, the others right."""
    return _table(rows, _MARKDOWN)


def terminal_table(rows: Sequence[Sequence[str]]) -> str:
    """The same for a terminal: columns two spaces apart, no lines."""
    return _table(rows, "plain")


def _table(rows: Sequence[Sequence[str]], form: object) -> str:
    head, *body = rows
    return tabulate.tabulate(
        body,
        headers=head,
        tablefmt=form,  # type: ignore[arg-type]  # the stubs lack TableFormat
        colalign=("left", *["right"] * (len(head) - 1)),
        disable_numparse=True,
    )


def fill(text: str, mark: str, content: str) -> str:
    """`text` with `content` between two marks, such as ``<!-- bench:rnn -->`` and ``<!-- /bench:rnn -->``.

    Raises
    ------
    ValueError
        If the two marks are not there, each once and in this order.
    """
    begin, end = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(end) < text.index(begin):
        raise ValueError(f"expected a line {begin} and after it a line {end}, each once, to write between them")
    return f"{text[: text.index(begin)]}{begin}\n{content}\n{text[text.index(end) :]}"
