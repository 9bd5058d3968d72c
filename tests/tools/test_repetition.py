"""What repeats in a text, and what it took from another, against the plainest implementation."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deeprnn.data.reading import load_text
from tools.repetition import copied, repeated

FEW = st.text("ab", max_size=40) | st.text("abc", max_size=80)


def windows(text, window):
    return [text[i : i + window] for i in range(len(text) - window + 1)]


def naive_repeated(text, window):
    every = windows(text, window)
    return sum(each in every[:i] for i, each in enumerate(every)) / len(every) if every else 0


def naive_copied(text, source, window):
    every = windows(text, window)
    share = sum(each in source for each in every) / len(every) if every else 0
    runs = (j - i for i in range(len(text)) for j in range(i + 1, len(text) + 1) if text[i:j] in source)
    return share, max(runs, default=0)


@settings(max_examples=300, deadline=None)
@given(FEW, st.integers(1, 25))
def test_repeated_is_what_it_says(text, window):
    assert repeated(text, window) == pytest.approx(naive_repeated(text, window), abs=1e-12)


@settings(max_examples=300, deadline=None)
@given(FEW, FEW, st.integers(1, 25))
def test_copied_is_what_it_says(text, source, window):
    share, longest = naive_copied(text, source, window)
    assert copied(text, source, window) == (pytest.approx(share, abs=1e-12), longest)


def test_texts_made_for_it():
    draw = np.random.default_rng(0)
    fresh = draw.permutation(1000)  # nothing twice
    assert repeated(fresh) == 0
    assert repeated(np.tile(fresh[:50], 10)) == pytest.approx(1 - 50 / (500 - 19))  # each window once, then again
    assert repeated("a" * 100) == pytest.approx(80 / 81)
    assert copied(fresh[100:350], fresh) == (1, 250)
    planted = np.concatenate([2000 + np.arange(77), fresh[400:531], 3000 + np.arange(77)])
    assert copied(planted, fresh) == (pytest.approx((131 - 19) / (len(planted) - 19)), 131)
    assert copied(fresh + 1000, fresh) == (0, 0)


def test_a_window_across_the_border_is_of_neither():
    assert copied("bb", "aab", 2) == (0, 1)
    assert copied("ba", "ab", 2) == (0, 1)


@pytest.mark.parametrize("text", ["", "a", "short", []])
def test_too_short_for_a_window(text):
    assert repeated(text) == 0
    assert copied(text, "a short source that is longer").share == 0
    assert copied("a", text).share == 0


def test_any_symbols():
    assert repeated("分开不分开𝄞𝄞" * 2, 3) == pytest.approx(5 / 12)
    assert repeated([10**12, 5, 10**12, 5], 2) == pytest.approx(1 / 3)


def test_no_window_at_all():
    with pytest.raises(ValueError, match="at least 1 symbol, got 0"):
        repeated("text", 0)
    with pytest.raises(ValueError, match="at least 1 symbol, got -1"):
        copied("text", "text", -1)


def test_ten_thousand_symbols_against_many():
    draw = np.random.default_rng(1)
    source = draw.integers(0, 30, size=300_000)
    text = np.concatenate([draw.integers(0, 30, size=5000), source[70_000:75_000]])
    found = copied(text, source)
    assert 5000 <= found.longest < 5010
    assert found.share == pytest.approx((5000 - 19) / (10_000 - 19), abs=1e-3)


@pytest.mark.skipif("DEEPRNN_DATA_DIR" not in os.environ, reason="needs DEEPRNN_DATA_DIR, the folder of the texts")
def test_the_lyrics_repeat_themselves():
    lyrics = Path(os.environ["DEEPRNN_DATA_DIR"]) / "jaychou_lyrics.txt.zip"
    text = load_text(str(lyrics), max_chars=10_000)[0]
    assert repeated(text, 20) == pytest.approx(0.43, abs=0.005)
    assert repeated(text, 35) == pytest.approx(0.375, abs=0.005)
