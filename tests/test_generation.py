"""How a symbol is chosen, and what a network is asked for it."""

from __future__ import annotations

import itertools
import tracemalloc

import mxnet as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deeprnn.generation import Sampler, beam_search, generate, samples
from deeprnn.runtimes import MXNetModel
from deeprnn.sampling import Samplers, generators, new_seed, repeat_lengths
from tools.repetition import repeated

LOGITS = np.log(np.array([0.1, 0.4, 0.05, 0.25, 0.2]))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def softmax(logits):
    weights = np.exp(logits - np.max(logits))
    return weights / weights.sum()


class Chain:
    """A Markov chain with the face of a network: the state counts steps, the logits depend on the last symbol."""

    def __init__(self, matrix):
        self.matrix, self.calls = np.asarray(matrix, dtype="float32"), []

    def begin_state(self, batch_size, ctx):
        return [mx.nd.zeros((1, batch_size, 1), ctx=ctx)]

    def __call__(self, ids, states):
        assert ids.dtype == np.int32
        self.calls.append((ids.shape, float(states[0].asnumpy().flat[0])))
        return mx.nd.array(self.matrix[ids.asnumpy()]), [states[0] + ids.shape[0]]


# -- Sampler


def test_the_distribution_is_the_softmax():
    np.testing.assert_allclose(Sampler().probabilities(LOGITS), [0.1, 0.4, 0.05, 0.25, 0.2], rtol=1e-12)


@pytest.mark.parametrize("temperature", [0.3, 0.9, 1.7, 50.0])
def test_temperature(temperature):
    np.testing.assert_allclose(
        Sampler(temperature=temperature).probabilities(LOGITS), softmax(LOGITS / temperature), rtol=1e-12
    )


def test_float32_logits_are_summed_in_float64():
    logits = np.random.default_rng(0).normal(size=5000).astype("float32") * 10
    probabilities = Sampler().probabilities(logits)
    assert probabilities.dtype == np.float64
    np.testing.assert_allclose(probabilities, softmax(logits.astype("float64")), rtol=1e-12)


def test_temperature_towards_zero_leaves_the_largest():
    for temperature in (1e-2, 1e-8, 1e-300):
        assert Sampler(temperature=temperature).probabilities(LOGITS)[1] == pytest.approx(1, abs=1e-12)
    ties = Sampler(temperature=1e-300).probabilities([0.0, 3.0, -1e30, 3.0])
    np.testing.assert_array_equal(ties, [0, 0.5, 0, 0.5])


def test_a_high_temperature_is_even():
    np.testing.assert_allclose(Sampler(temperature=1e9).probabilities(LOGITS), [0.2] * 5, rtol=1e-6)


def test_large_logits_do_not_overflow():
    np.testing.assert_array_equal(Sampler().probabilities([1e4, -1e4, 1e38]), [0, 0, 1])


@pytest.mark.parametrize(
    ("top_k", "expected"),
    [
        (0, [0.1, 0.4, 0.05, 0.25, 0.2]),
        (1, [0, 1, 0, 0, 0]),
        (2, [0, 0.4, 0, 0.25, 0]),
        (4, [0.1, 0.4, 0, 0.25, 0.2]),
        (5, [0.1, 0.4, 0.05, 0.25, 0.2]),
        (99, [0.1, 0.4, 0.05, 0.25, 0.2]),
    ],
)
def test_top_k(top_k, expected):
    np.testing.assert_allclose(Sampler(top_k=top_k).probabilities(LOGITS), np.divide(expected, sum(expected)))


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [
        (1e-9, [1]),  # one is always left
        (0.39, [1]),
        (0.41, [1, 3]),
        (0.64, [1, 3]),
        (0.66, [1, 3, 4]),
        (0.949, [0, 1, 3, 4]),
        (0.951, [0, 1, 2, 3, 4]),
        (1.0, [0, 1, 2, 3, 4]),
    ],
)
def test_top_p_keeps_the_fewest_that_suffice(top_p, kept):
    probabilities = Sampler(top_p=top_p).probabilities(LOGITS)
    assert np.flatnonzero(probabilities).tolist() == kept
    assert probabilities.sum() == pytest.approx(1)


def test_top_p_that_is_met_exactly():
    """0.5 is enough for 0.5; in powers of two there is no rounding to hide behind."""
    logits = np.log([0.5, 0.25, 0.125, 0.125])
    for top_p, kept in [(0.5, 1), (0.75, 2), (0.875, 3), (np.nextafter(0.5, 1), 2), (1.0, 4)]:
        assert np.count_nonzero(Sampler(top_p=top_p).probabilities(logits)) == kept


def test_equal_symbols_are_kept_by_id():
    assert np.flatnonzero(Sampler(top_k=2).probabilities(np.zeros(5))).tolist() == [0, 1]
    assert np.flatnonzero(Sampler(top_p=0.4).probabilities(np.zeros(5))).tolist() == [0, 1]
    # A sort that is not stable shows with many symbols only.
    assert np.flatnonzero(Sampler(top_k=4).probabilities(np.tile([0.0, 1.0], 500))).tolist() == [1, 3, 5, 7]


def test_top_p_after_top_k_and_temperature():
    """Of the three most probable, at temperature 0.5: 0.16, 0.0625, 0.04, that is 0.61, 0.24, 0.15."""
    sampler = Sampler(temperature=0.5, top_k=3, top_p=0.8)
    expected = np.array([0, 0.16, 0, 0.0625, 0])
    np.testing.assert_allclose(sampler.probabilities(LOGITS), expected / expected.sum())


def test_a_symbol_that_cannot_be_is_never_kept_for_its_place():
    probabilities = Sampler(temperature=1e-3).probabilities([0.0, 50.0, 100.0])
    assert np.count_nonzero(probabilities) == 1


def test_all_symbols_banned():
    with pytest.raises(ValueError, match="banned has all 2 symbols: there is nothing to choose from"):
        Sampler().choose([1.0, 2.0], np.random.default_rng(0), banned=[0, 1])


def test_greedy_takes_the_largest_and_of_equals_the_first():
    sampler = Sampler(greedy=True)
    assert {sampler.choose(LOGITS, rng(seed)) for seed in range(20)} == {1}
    assert sampler.choose(np.array([0.0, 2.0, 1.0, 2.0]), rng()) == 1
    assert Sampler(greedy=True, temperature=9.0, top_k=3).choose(LOGITS, rng()) == 1


def test_greedy_takes_memory_for_the_logits_alone():
    """Not for a table of all symbols by all symbols, 128 MB here."""
    logits = np.random.default_rng(0).normal(size=4000)
    tracemalloc.start()
    try:
        assert Sampler(greedy=True).choose(logits, rng()) == logits.argmax()
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_greedy_and_drawn_texts_side_by_side():
    weights = Samplers([Sampler(greedy=True), Sampler(), Sampler(greedy=True)]).weights([LOGITS, LOGITS, LOGITS[::-1]])
    assert weights[[0, 2]].tolist() == [[0, 1, 0, 0, 0], [0, 0, 0, 1, 0]]
    np.testing.assert_allclose(weights[1] / weights[1].sum(), np.exp(LOGITS))


@pytest.mark.parametrize(
    "sampler",
    [Sampler(), Sampler(temperature=0.6), Sampler(top_k=3), Sampler(top_p=0.7), Sampler(temperature=2, top_p=0.9)],
)
def test_symbols_come_as_often_as_they_should(sampler):
    """Chi-square against the distribution: 99.9 % of samples stay below 18.5 at four degrees of freedom."""
    draws, generator = 4000, rng(5)
    counts = np.bincount([sampler.choose(LOGITS, generator) for _ in range(draws)], minlength=5)
    expected = draws * sampler.probabilities(LOGITS)
    assert counts[expected == 0].sum() == 0
    possible = expected > 0
    assert ((counts - expected)[possible] ** 2 / expected[possible]).sum() < 18.5


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"temperature": 0}, ValueError, "temperature must be above 0 and finite, got 0; greedy=True takes"),
        ({"temperature": -1.0}, ValueError, "temperature must be above 0"),
        ({"temperature": float("nan")}, ValueError, "temperature must be above 0"),
        ({"temperature": float("inf")}, ValueError, "temperature must be above 0"),
        ({"temperature": "hot"}, TypeError, "temperature must be a number, got 'hot'"),
        ({"top_k": -1}, ValueError, "top_k must be at least 0, got -1"),
        ({"top_k": 1.5}, TypeError, "top_k must be a whole number, got 1.5"),
        ({"top_p": 0.0}, ValueError, "top_p must be above 0 and at most 1, got 0.0"),
        ({"top_p": 1.01}, ValueError, "top_p must be above 0 and at most 1"),
        ({"top_p": float("nan")}, ValueError, "top_p must be above 0"),
        ({"top_p": True}, TypeError, "top_p must be a number, got True"),
    ],
)
def test_bad_options_are_named(options, error, message):
    with pytest.raises(error) as raised:
        Sampler(**options)
    assert str(raised.value).startswith(message)


def test_numbers_of_numpy_are_numbers():
    options = {"temperature": 0.5, "top_p": 0.75, "repetition_penalty": 0.25}
    text = [0, 1, 2, 0, 1]
    expected = Sampler(**options, repetition_length=1).probabilities(LOGITS, text=text)
    for kind in (np.float64, np.float32, np.float16):
        sampler = Sampler(**{name: kind(value) for name, value in options.items()}, repetition_length=np.int64(1))
        np.testing.assert_array_equal(sampler.probabilities(LOGITS, text=text), expected)
    assert Sampler(temperature=np.float32(1e-40)).probabilities(LOGITS)[1] == 1
    with pytest.raises(TypeError, match="top_p must be a number, got "):
        Sampler(top_p=np.bool_(True))


@pytest.mark.parametrize("bad", [[0.0, float("nan")], [0.0, float("inf")], [[0.0, 1.0]]])
def test_bad_logits_are_refused(bad):
    with pytest.raises(ValueError, match="logits must be rows of finite numbers"):
        Sampler().choose(np.array(bad), rng())


# -- generate


CYCLE = np.log(np.eye(4)[[1, 2, 3, 0]] + 1e-6)  # 0 -> 1 -> 2 -> 3 -> 0
ANY = np.random.default_rng(1).normal(size=(4, 4))


def test_the_prefix_goes_in_at_once_and_then_one_step_a_symbol():
    net = Chain(CYCLE)
    ids = generate(net, [3, 0, 1], 6, sampler=Sampler(greedy=True), rng=rng())
    assert ids == [2, 3, 0, 1, 2, 3]
    assert net.calls == [((3, 1), 0.0)] + [((1, 1), float(steps)) for steps in range(3, 8)]


def test_the_same_seed_gives_the_same_text():
    first, again, other = (generate(Chain(ANY), [0], 50, sampler=Sampler(), rng=rng(seed)) for seed in (1, 1, 2))
    assert first == again != other
    assert all(type(symbol) is int for symbol in first)


def test_greedy_does_not_depend_on_the_seed():
    first, other = (generate(Chain(ANY), [0], 20, sampler=Sampler(greedy=True), rng=rng(seed)) for seed in (1, 2))
    assert first == other


def test_a_chain_is_walked_with_its_probabilities():
    ids = generate(Chain(ANY), [0], 1500, sampler=Sampler(temperature=0.8), rng=rng(3))
    counts = np.zeros((4, 4))
    np.add.at(counts, (ids[:-1], ids[1:]), 1)
    for before, row in enumerate(counts):
        expected = row.sum() * softmax(ANY[before] / 0.8)
        assert ((row - expected) ** 2 / expected).sum() < 16.3  # 99.9 % at three degrees of freedom


def test_short_ones():
    net = Chain(CYCLE)
    assert generate(net, [0], 0, sampler=Sampler(), rng=rng()) == []
    assert generate(net, (0,), 1, sampler=Sampler(greedy=True), rng=rng()) == [1]
    assert generate(net, np.array([0, 1]), 1, sampler=Sampler(greedy=True), rng=rng()) == [2]


def test_what_cannot_be_generated():
    with pytest.raises(ValueError, match="prefix is empty"):
        generate(Chain(CYCLE), [], 5, sampler=Sampler(), rng=rng())
    with pytest.raises(ValueError, match="length must be at least 0, got -1"):
        generate(Chain(CYCLE), [0], -1, sampler=Sampler(), rng=rng())
    with pytest.raises(ValueError, match="rngs is empty: give a generator for each text, at least one"):
        samples(MXNetModel(Chain(CYCLE)), [0], 5, sampler=Sampler(), rngs=[])


@pytest.mark.parametrize("sampler", [Sampler(), Sampler(greedy=True), Sampler(top_k=2), Sampler(top_p=0.5)], ids=str)
def test_what_is_never_to_be_chosen_is_not(sampler):
    logits = np.array([5.0, 3.0, 2.0, 1.0])
    probabilities = sampler.probabilities(logits, banned=[0])
    assert probabilities[0] == 0 and probabilities.sum() == pytest.approx(1)
    assert probabilities[1:] == pytest.approx(sampler.probabilities(logits[1:]))
    assert logits[0] == 5  # the caller's array is left alone
    assert 1 not in generate(Chain(ANY), [0], 200, sampler=sampler, rng=rng(), banned=[1])


# -- many at once


@pytest.mark.parametrize(
    "sampler",
    [Sampler(), Sampler(temperature=0.5, top_k=3), Sampler(top_p=0.6), Sampler(repetition_penalty=1.0)],
    ids=["plain", "top-k", "top-p", "penalty"],
)
def test_texts_that_are_generated_together_are_those_generated_alone(sampler):
    rngs = [rng(seed) for seed in range(5)]
    together = np.array(list(samples(MXNetModel(Chain(ANY)), [2, 0], 40, sampler=sampler, rngs=rngs))).T
    for seed, ids in enumerate(together):
        assert ids.tolist() == generate(Chain(ANY), [2, 0], 40, sampler=sampler, rng=rng(seed))


def test_the_seeds_of_several_texts():
    texts = [each.random(4).tolist() for each in generators(7, 3)]
    assert texts[0] == rng(7).random(4).tolist() == generators(7, 1)[0].random(4).tolist()
    assert texts[:2] == [each.random(4).tolist() for each in generators(7, 2)]
    assert len({*map(tuple, texts)}) == 3
    seeds = {new_seed() for _ in range(5)}
    assert len(seeds) == 5 and all(type(seed) is int and seed >= 0 for seed in seeds)


def test_symbols_come_one_after_the_other():
    net = Chain(CYCLE)
    steps = samples(MXNetModel(net), [0], 100, sampler=Sampler(greedy=True), rngs=[rng(), rng()])
    assert [next(steps).tolist() for _ in range(3)] == [[1, 1], [2, 2], [3, 3]] and len(net.calls) == 3


def test_a_difference_in_the_last_digits_of_the_logits_changes_no_text():
    for sampler in (Sampler(), Sampler(greedy=True)):
        texts = []
        for by in (-2e-6, 0, 2e-6):  # of which greedy sees the first two as equal
            matrix = np.round(ANY, 4)
            matrix[:, 1] = matrix[:, 0] + by
            texts.append(generate(Chain(matrix), [0], 500, sampler=sampler, rng=rng(4)))
        assert texts[0] == texts[1] == texts[2]


# -- beam search


def best_by_trying_all(length, banned=()):
    """The most probable texts after a 0, each with its log-probability, by writing them all down."""
    shares = np.log([softmax(np.round(row.astype("float32"), 4)) for row in ANY])
    found = []
    for text in itertools.product(range(4), repeat=length):
        if not set(text) & set(banned):
            found.append((sum(shares[a, b] for a, b in zip((0, *text), text)), list(text)))
    return [(text, score) for score, text in sorted(found, reverse=True)]


@pytest.mark.parametrize("banned", [(), (2,)])
def test_a_wide_beam_finds_the_most_probable_texts(banned):
    found = beam_search(MXNetModel(Chain(ANY)), [3, 0], 4, beam=64, vocab_size=4, banned=banned)
    expected = best_by_trying_all(4, banned)[:64]
    assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=1e-4)
    assert found[0][0] == expected[0][0] and len(found) == 64
    assert not any(set(text) & set(banned) for text, _ in found)


def test_a_beam_of_one_is_greedy():
    ((text, score),) = beam_search(MXNetModel(Chain(ANY)), [1], 30, beam=1, vocab_size=4)
    assert text == generate(Chain(ANY), [1], 30, sampler=Sampler(greedy=True), rng=rng()) and score < 0


def test_the_states_of_a_beam_follow_its_text():
    """The logits depend on the sum of the text so far, which only the state knows."""

    class Sum(Chain):
        def __call__(self, ids, states):
            total = (states[0] + ids.astype("float32").sum(axis=0).reshape((1, -1, 1))) % 4
            return mx.nd.array(self.matrix[total[0, :, 0].asnumpy().astype(int)][np.newaxis]), [total]

    ((text, _), *_) = beam_search(MXNetModel(Sum(ANY)), [1, 2], 3, beam=64, vocab_size=4)
    shares = np.log([softmax(row) for row in ANY])
    best = max(
        itertools.product(range(4), repeat=3), key=lambda t: sum(shares[(3 + sum(t[:i])) % 4, t[i]] for i in range(3))
    )
    assert text == list(best)


# -- repetition


def naive_repeat_length(text, symbol):
    """The longest row ending in `symbol`, put after `text`, that occurs in `text`."""
    longer = [*text, symbol]
    for length in range(len(longer), 0, -1):
        row = longer[-length:]
        if any(list(text[i : i + length]) == row for i in range(len(text) - length + 1)):
            return length
    return 0


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 2), max_size=30))
def test_repeat_lengths_are_what_they_say(text):
    assert repeat_lengths(text, 4).tolist() == [naive_repeat_length(text, symbol) for symbol in range(4)]


def test_the_penalty_is_in_proportion_to_what_is_beyond_the_free_length():
    sampler = Sampler(repetition_penalty=0.5, repetition_length=1)
    text = [0, 1, 2, 0, 1]  # a 0 or a 1 now would be a row of 1, a 2 one of 3
    expected = softmax(LOGITS - [0, 0, 0.5 * 2, 0, 0])
    np.testing.assert_allclose(sampler.probabilities(LOGITS, text=text), expected, rtol=1e-12)
    freely = Sampler(repetition_penalty=0.5, repetition_length=3).probabilities(LOGITS, text=text)
    np.testing.assert_allclose(freely, softmax(LOGITS), rtol=1e-12)


def test_without_the_penalty_the_text_does_not_matter():
    np.testing.assert_array_equal(Sampler().probabilities(LOGITS, text=[1] * 50), Sampler().probabilities(LOGITS))


def test_the_penalty_leads_greedy_out_of_a_circle():
    chain = Chain([[0, 5, 0, 0], [0, 0, 5, 0], [5, 0, 0, 1], [5, 0, 0, 0]])
    circle = generate(chain, [0], 40, sampler=Sampler(greedy=True), rng=rng())
    assert set(circle) == {0, 1, 2}
    led = generate(
        chain, [0], 400, sampler=Sampler(greedy=True, repetition_penalty=1.0, repetition_length=6), rng=rng()
    )
    assert set(led) == {0, 1, 2, 3}
    assert repeated(circle, 20) > 0.7 > 0.1 > repeated(led, 20)


def test_the_prefix_counts_as_text():
    """A circle in the prefix is as good a reason as one that was generated."""
    chain = Chain([[0, 5, 4.9], [5, 0, 0], [5, 0, 0]])
    sampler = Sampler(greedy=True, repetition_penalty=1.0, repetition_length=4)
    assert generate(chain, [0, 1] * 5 + [0], 1, sampler=sampler, rng=rng()) == [2]
    assert generate(chain, [0], 1, sampler=sampler, rng=rng()) == [1]


@pytest.mark.parametrize("value", [-0.1, float("inf"), float("nan")])
def test_a_penalty_out_of_range(value):
    with pytest.raises(ValueError, match=r"repetition_penalty must be at least 0 and finite"):
        Sampler(repetition_penalty=value)


def test_a_repetition_length_out_of_range():
    with pytest.raises(ValueError, match=r"repetition_length must be at least 0, got -1"):
        Sampler(repetition_length=-1)
    with pytest.raises(TypeError, match=r"repetition_penalty must be a number, got 'much'"):
        Sampler(repetition_penalty="much")
