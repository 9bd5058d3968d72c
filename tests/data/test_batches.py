"""Batches: the drawing in the module, the book's protocol, gluonnlp's batches as a check, and the laws of each kind."""

from __future__ import annotations

import gluonnlp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from deeprnn.data.batches import Batches

law = settings(max_examples=60)
lengths, sizes, steps = st.integers(0, 100), st.integers(1, 6), st.integers(1, 8)
consecutive_or_random = st.sampled_from(["consecutive", "random"])


def made(length, *args, **options):
    """Batches of the ids 0, 1, 2, ..., or none of this example if the text is too short."""
    try:
        return Batches(np.arange(length, dtype=np.int32), *args, **options)
    except ValueError:
        assume(False)


def pairs(batches, epoch=0):
    return [(data.asnumpy(), target.asnumpy()) for data, target in batches.epoch(epoch)]


def letters(batches, epoch=0):
    """Each batch as rows of (data, target) strings."""

    def rows(array):
        return ["".join("abcdefghij"[i] for i in column) for column in array.T]

    return [list(zip(rows(data), rows(target))) for data, target in pairs(batches, epoch)]


def test_the_drawing():
    ten = np.arange(10)
    assert letters(Batches(ten, 2, 3)) == [[("abc", "bcd"), ("fgh", "ghi")]]
    evaluation = Batches(ten, 2, 3, keep_last=True)
    assert letters(evaluation) == [[("abc", "bcd"), ("efg", "fgh")], [("d", "e"), ("h", "i")]]
    assert (evaluation.scored, evaluation.unscored) == (8, 1)
    drawn = [("efg", "fgh"), ("bcd", "cde")]
    assert any(letters(Batches(ten, 2, 3, "random"), epoch) == [drawn] for epoch in range(100))


def test_the_books_protocol():
    batches = Batches(np.arange(10_000) % 1027, 32, 35)
    assert len(batches) == 8 and batches.carries_state and batches.scored == 8 * 32 * 35
    data, target = next(iter(batches))
    assert data.shape == target.shape == (35, 32)
    assert data.dtype == target.dtype == np.int32
    stream = (np.arange(10_000) % 1027)[: 32 * 312].reshape(32, 312)
    for step, (data, target) in enumerate(pairs(batches)):
        np.testing.assert_array_equal(data, stream[:, step * 35 : step * 35 + 35].T)
        np.testing.assert_array_equal(target, stream[:, step * 35 + 1 : step * 35 + 36].T)
    batches = Batches(np.arange(10_000), 32, 35, "random")
    assert len(batches) == 8 and not batches.carries_state


@law
@given(lengths, sizes, steps)
def test_training_batches_are_those_of_gluonnlp(length, batch_size, seq_len):
    batches = made(length, batch_size, seq_len)
    vocab = gluonnlp.Vocab(gluonnlp.data.count_tokens(range(length)), unknown_token=None, padding_token=None,
                           bos_token=None, eos_token=None)  # fmt: skip
    theirs = gluonnlp.data.batchify.CorpusBPTTBatchify(vocab, seq_len, batch_size, "discard")(list(range(length)))
    ours = pairs(batches)
    assert len(batches) == len(ours) == len(theirs)
    for (data, target), (their_data, their_target) in zip(ours, theirs):
        np.testing.assert_array_equal(data, their_data.asnumpy())
        np.testing.assert_array_equal(target, their_target.asnumpy())


@law
@given(lengths, sizes, steps, consecutive_or_random, st.booleans(), st.integers(0, 3))
def test_a_target_is_the_next_symbol(length, batch_size, seq_len, sampling, keep_last, epoch):
    batches = made(length, batch_size, seq_len, sampling, keep_last=keep_last)
    drawn = pairs(batches, epoch)
    assert len(drawn) == len(batches)
    for data, target in drawn:
        np.testing.assert_array_equal(target, data + 1)
        assert (np.diff(data, axis=0) == 1).all()  # within a window, time runs on
        assert target.max() < length
    targets = [symbol for _, target in drawn for symbol in target.ravel()]
    assert len(targets) == len(set(targets)) == batches.scored  # none twice: windows do not overlap
    assert batches.scored + batches.unscored == max(length - 1, 0)


@law
@given(lengths, sizes, steps, st.booleans())
def test_a_consecutive_batch_continues_the_one_before(length, batch_size, seq_len, keep_last):
    drawn = pairs(made(length, batch_size, seq_len, keep_last=keep_last))
    for (data, _), (following, _) in zip(drawn, drawn[1:]):
        np.testing.assert_array_equal(following[0], data[-1] + 1)
    if drawn:
        streams = np.concatenate([data for data, _ in drawn]).T
        assert (np.diff(streams, axis=1) == 1).all()  # contiguous parts of the text, from its beginning
        assert streams[0, 0] == 0 and (np.diff(streams[:, 0]) > 0).all()


@law
@given(lengths, sizes, steps)
def test_evaluation_scores_every_symbol_it_can(length, batch_size, seq_len):
    batches = Batches(np.arange(length, dtype=np.int32), batch_size, seq_len, keep_last=True)
    assert batches.batch_size <= batch_size and batches.unscored < batches.batch_size
    assert batches.batch_size == batch_size or length - 1 < batch_size * seq_len
    targets = sorted(symbol for _, target in pairs(batches) for symbol in target.ravel())
    assert targets == list(range(1, batches.scored + 1))  # all but the first, up to the remainder
    shapes = [data.shape for data, _ in pairs(batches)]
    assert all(shape == (seq_len, batches.batch_size) for shape in shapes[:-1])
    assert not shapes or shapes[-1][0] <= seq_len
    assert batches.batch_size == 1 or shapes[0][0] == seq_len  # rather fewer streams than short ones
    where = list(batches.positions())  # each symbol of this text is its position
    assert len(where) == len(batches)
    for positions, (_, target) in zip(where, pairs(batches)):
        np.testing.assert_array_equal(positions, target)


@law
@given(lengths, sizes, steps, st.integers(0, 5), st.integers(0, 5))
def test_random_windows_depend_on_seed_and_epoch_alone(length, batch_size, seq_len, seed, epoch):
    first = made(length, batch_size, seq_len, "random", seed)
    again = made(length, batch_size, seq_len, "random", seed)
    list(first.epoch(epoch + 1))  # another epoch in between changes nothing
    for (data, _), (same, _) in zip(pairs(first, epoch), pairs(again, epoch)):
        np.testing.assert_array_equal(data, same)
    starts = np.concatenate([data[0] for data, _ in pairs(first, epoch)])
    assert len(set(starts % seq_len)) == 1  # one offset, windows side by side
    assert starts.min() >= 0 and starts.min() % seq_len == starts[0] % seq_len


def test_random_windows_differ_between_epochs_and_seeds():
    batches = Batches(np.arange(1000), 4, 10, "random")
    other = Batches(np.arange(1000), 4, 10, "random", seed=1)
    starts = [next(drawn.epoch(epoch))[0][0].asnumpy() for drawn in (batches, other) for epoch in range(50)]
    assert len({tuple(first) for first in starts}) == 100
    assert {first[0] % 10 for first in starts} == set(range(10))  # every offset


@law
@given(lengths, sizes, steps, consecutive_or_random, st.booleans(), st.integers(1, 6))
def test_shares_make_up_the_batches(length, batch_size, seq_len, sampling, keep_last, workers):
    keep_last = keep_last and sampling == "consecutive"
    whole = made(length, batch_size, seq_len, sampling, keep_last=keep_last)
    assume(workers <= whole.batch_size)
    shares = [lambda n, w=w: slice(n * w // workers, n * (w + 1) // workers) for w in range(workers)]
    shards = [made(length, batch_size, seq_len, sampling, share=share, keep_last=keep_last) for share in shares]
    assert {(len(shard), shard.batch_size, shard.scored) for shard in shards} == {
        (len(whole), whole.batch_size, whole.scored)
    }
    for batch, *parts in zip(pairs(whole, 3), *(pairs(shard, 3) for shard in shards)):
        for all_of_it, of_each in zip(batch, zip(*parts)):
            np.testing.assert_array_equal(np.concatenate(of_each, axis=1), all_of_it)
            assert max(part.shape[1] for part in of_each) - min(part.shape[1] for part in of_each) <= 1


def test_an_epoch_can_be_taken_again():
    batches = Batches(np.arange(100), 4, 5)
    assert [data.shape for data, _ in batches] == [data.shape for data, _ in batches] == [(5, 4)] * len(batches)


@law
@given(sizes, steps, consecutive_or_random)
def test_a_text_shorter_than_one_batch_says_what_is_needed(batch_size, seq_len, sampling):
    needed = batch_size * (seq_len + 1) if sampling == "consecutive" else batch_size * seq_len + 1
    assert len(Batches(np.arange(needed), batch_size, seq_len, sampling)) == 1
    with pytest.raises(ValueError) as error:
        Batches(np.arange(needed - 1), batch_size, seq_len, sampling)
    message = str(error.value)
    assert "\n" not in message and f"batch_size={batch_size} and seq_len={seq_len}" in message
    assert f"{needed} symbols" in message and f"got {needed - 1};" in message


def test_an_empty_part_has_nothing_to_score():
    for length in (0, 1):
        batches = Batches(np.zeros(length, dtype=np.int32), 32, 35, keep_last=True)
        assert len(batches) == batches.scored == batches.unscored == 0 and list(batches) == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((np.arange(100), 0, 5), "batch_size must be at least 1, got 0"),
        ((np.arange(100), 4, -1), "seq_len must be at least 1, got -1"),
        ((np.arange(100), 4, 5, "shuffled"), "sampling must be one of 'consecutive', 'random', got 'shuffled'"),
        ((np.arange(100).reshape(10, 10), 4, 5), r"shape \(symbols,\), got int64 of shape \(10, 10\)"),
        ((np.ones(100), 4, 5), "ids must be integers .* got float64"),
    ],
)
def test_bad_arguments(arguments, expected):
    with pytest.raises(ValueError, match=expected):
        Batches(*arguments)


def test_random_sampling_does_not_score_every_symbol():
    with pytest.raises(ValueError, match="keep_last needs consecutive sampling"):
        Batches(np.arange(100), 4, 5, "random", keep_last=True)
