"""Text that a model writes: its beginning as ids, and the symbols that come as characters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .text import decode, encode

if TYPE_CHECKING:
    import gluonnlp

__all__ = ["Text", "prefix_ids", "unknown_ids"]


def prefix_ids(vocab: gluonnlp.Vocab, unit: str, prefix: str, option: str) -> list[int]:
    """The ids of a prefix; for an empty one the most frequent symbol, after which most symbols can follow.

    Raises
    ------
    ValueError
        If the prefix has unknown symbols, or none; the message begins with `option`.
    """
    if not prefix:
        return [0 if vocab.unknown_token is None else 1]
    try:
        ids: list[int] = encode(vocab, prefix, unit).tolist()
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from error
    if not ids:
        raise ValueError(f"{option} has no {unit} in it")
    return ids


def unknown_ids(vocab: gluonnlp.Vocab) -> list[int]:
    """The ids that are never generated: that of the unknown token, which is no text."""
    return [] if vocab.unknown_token is None else [vocab[vocab.unknown_token]]


class Text:
    """A text that is being generated: symbols in, characters out.

    Parameters
    ----------
    vocab, unit
        What the symbols are.
    prefix
        Ids of its beginning.
    stop
        The text ends with the first of these that occurs in what is added.

    Attributes
    ----------
    text : str
        All of it so far.
    stopped : str
        The stop text that ended it, with which it ends; empty until then. Nothing is added after it.
    """

    def __init__(self, vocab: gluonnlp.Vocab, unit: str, prefix: Sequence[int], stop: Sequence[str] = ()) -> None:
        self._tokens, self._words = vocab.idx_to_token, unit == "word"
        self._last = self._tokens[prefix[-1]] if len(prefix) else ""
        self.text = decode(vocab, prefix, unit)
        self._begin, self._stop, self.stopped = len(self.text), stop, ""

    def add(self, symbol: int) -> str:
        """Add a symbol; returns the characters that it adds."""
        if self.stopped:
            return ""
        added = self._tokens[symbol]
        if self._words:
            before, self._last = self._last, added
            # As `decode` joins words: by a space, unless one of them is a newline.
            added = added if before in ("", "\n") or added == "\n" else f" {added}"
        self.text += added
        for stop in self._stop:
            found = self.text.find(stop, max(self._begin, len(self.text) - len(added) - len(stop) + 1))
            if found >= 0:
                end = found + len(stop)  # a word may have more
                added = added[: len(added) - (len(self.text) - end)]
                self.text, self.stopped = self.text[:end], stop
        return added
