"""Wording of messages: counted nouns."""

from __future__ import annotations

from typing import Optional

__all__ = ["counted"]


def counted(number: int, noun: str, plural: Optional[str] = None) -> str:
    """A number with its noun in the singular or the plural.

    >>> counted(1, "epoch"), counted(2000, "epoch"), counted(0, "vocabulary", "vocabularies")
    ('1 epoch', '2,000 epochs', '0 vocabularies')
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
