"""The engine: one text for one seed, whoever else is served; joining, leaving, limits, failures."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from small_model import TOKENS, network

from deeprnn.data.text import encode
from deeprnn.data.writing import Text
from deeprnn.evaluation import evaluate
from deeprnn.generation import samples
from deeprnn.runtimes import MXNetModel
from deeprnn.sampling import Sampler, Samplers
from deeprnn.serve import engine as module
from deeprnn.serve.batch import agreeing_sizes
from deeprnn.serve.engine import Busy, Engine, Failed
from deeprnn.serve.jobs import Scoring, Writing

BANNED = [0]


class Running:
    """An engine, and how to wait for it."""

    def __init__(self, model, **options):
        self.turned = threading.Event()
        self.engine = Engine(model, len(TOKENS), banned=BANNED, notify=lambda _: self.turned.set(), **options)
        self.engine.start()
        self.until(lambda: self.engine.ready or self.engine.error)

    def until(self, reached):
        deadline = time.monotonic() + 60
        while not reached():
            assert time.monotonic() < deadline
            self.turned.wait(0.01)
            self.turned.clear()

    def run(self, *jobs):
        for job in jobs:
            self.engine.submit(job)
        self.until(lambda: all(job.over for job in jobs))


@pytest.fixture
def run():
    """Engines, which end with the test."""
    made = []

    def begin(model, **options):
        made.append(Running(model, **options))
        return made[-1]

    yield begin
    for each in made:
        each.engine.stop()


def writing(vocab, seed=0, prefix="a", length=40, texts=1, stop=(), seconds=60.0, details=False, **sampler):
    ids = encode(vocab, prefix).tolist()
    return Writing(
        ids,
        time.monotonic() + seconds,
        length=length,
        sampler=Sampler(**sampler),
        texts=[Text(vocab, "char", ids, stop) for _ in range(texts)],
        rngs=[np.random.default_rng((seed, i) if i else seed) for i in range(texts)],
        details=details,
    )


def text_of(job, index=0):
    return "".join(symbol.text for symbol in job.news if symbol.index == index)


SAMPLERS = [{}, {"temperature": 0.5}, {"top_k": 3}, {"top_p": 0.7}, {"greedy": True}, {"repetition_penalty": 1.0}]


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_a_seed_gives_the_same_text_whoever_else_is_served(cell, vocab, run):
    begun = run(MXNetModel(network(cell)), slots=20)
    rng = np.random.default_rng(1)
    prefixes = ["".join(rng.choice(list("abc xyz"), rng.integers(1, 150))) for _ in range(18)]

    def job(seed):
        return writing(vocab, seed, prefixes[seed], 30 + seed, **SAMPLERS[seed % len(SAMPLERS)])

    alone = []
    for seed in range(6):
        alone.append(job(seed))
        begun.run(alone[-1])
    together = [job(seed) for seed in reversed(range(18))]
    begun.run(*together)
    assert [text_of(each) for each in together[::-1][:6]] == [text_of(each) for each in alone]
    assert all(len(text_of(each)) == each.length for each in together)


def test_the_text_is_the_one_that_generate_writes(vocab, run):
    model = MXNetModel(network())
    rngs = [np.random.default_rng(seed) for seed in (3, (3, 1))]
    ids = encode(vocab, "over the hills").tolist()
    expected = np.array(list(samples(model, ids, 60, sampler=Sampler(), rngs=rngs, banned=BANNED))).T
    job = writing(vocab, 3, "over the hills", 60, texts=2)
    run(model, slots=8).run(job)
    assert [text_of(job, i) for i in range(2)] == ["".join(TOKENS[i] for i in text) for text in expected]


def test_a_score_is_the_loss_that_evaluate_finds(vocab, run):
    import mxnet as mx

    model = MXNetModel(network("lstm"))
    ids = np.random.default_rng(0).integers(1, len(TOKENS), 300)
    pair = tuple(mx.nd.array(part[:, np.newaxis], dtype="int32") for part in (ids[:-1], ids[1:]))
    expected, places = evaluate(model, [pair], [np.arange(1, 300)], 1)
    job = Scoring(ids.tolist(), time.monotonic() + 60)
    run(model).run(job)
    (score,) = job.news
    assert len(score.losses) == 299 and abs(score.losses.mean() - expected) < 1e-6
    worst = int(score.losses.argmax())
    assert score.expected[worst] == places[0].expected and abs(score.losses[worst] - places[0].loss) < 1e-5


def test_all_rows_of_the_sizes_that_are_used_agree():
    model = MXNetModel(network("gru", 40))
    sizes = agreeing_sizes(model, 30, len(TOKENS))
    assert sizes == sorted(sizes) and sizes[-1] >= 30
    rng = np.random.default_rng(2)
    symbols, found = rng.integers(len(TOKENS), size=12), set()
    for size in sizes:
        for place in range(size):
            states = model.begin(size)
            for symbol in symbols:
                ids = rng.integers(len(TOKENS), size=(1, size))
                ids[0, place] = symbol
                logits, states = model(ids, states)
            found.add(logits[0, place].tobytes())
    assert len(found) == 1


def test_sizes_whose_rows_differ_are_not_used():
    class Tiled:
        """Rows come in tiles of six; those of another tile are computed otherwise."""

        def begin(self, size):
            return None

        def __call__(self, ids, states):
            rows = np.arange(ids.shape[1])
            tail = rows >= ids.shape[1] // 6 * 6
            return np.float32(ids[:, :, np.newaxis] + 1e-6 * tail[np.newaxis, :, np.newaxis]), states

    assert agreeing_sizes(Tiled(), 20, 5) == [6, 12, 24]


def test_rows_of_samplers_do_not_depend_on_each_other():
    rng = np.random.default_rng(0)
    samplers = [Sampler(**SAMPLERS[i % len(SAMPLERS)]) for i in range(24)]
    logits = rng.normal(0, 3, (24, 50))
    texts = [rng.integers(50, size=20).tolist() * 2 for _ in range(24)]
    weights = Samplers(samplers).weights(logits, [3], texts)
    for row, sampler, values, text in zip(weights, samplers, logits, texts):
        alone = Samplers([sampler]).weights(values[np.newaxis], [3], [text])
        assert np.array_equal(row, alone[0])
        assert np.array_equal(row / row.sum(), sampler.probabilities(values, [3], text))


def test_texts_end_where_they_should(vocab, run):
    begun = run(MXNetModel(network()), slots=4)
    by_stop, by_time = writing(vocab, length=500, stop=["e"]), writing(vocab, length=10**6, seconds=0.3)
    begun.run(by_stop, by_time)
    assert text_of(by_stop).endswith("e") and text_of(by_stop).count("e") == 1
    assert by_stop.news[-1].reason == "stop" and by_time.news[-1].reason == "time" and by_time.news
    assert begun.engine.running == 0


def test_probabilities_are_the_models_own(vocab, run):
    model = MXNetModel(network())
    job = writing(vocab, length=3, details=True, temperature=0.1)
    run(model).run(job)
    logits, _ = model(np.array([[vocab["a"]]]), model.begin(1))
    shares = np.exp(logits[0, 0] - logits.max())
    shares /= shares.sum()
    first = job.news[0]
    assert abs(np.exp(first.logprob) - shares[vocab[first.text]]) < 1e-5
    assert [i for i, _ in first.likeliest] == np.argsort(-shares)[:5].tolist()


def test_who_is_not_wanted_any_more_frees_the_slots(vocab, run):
    begun = run(MXNetModel(network()), slots=4)
    endless = [writing(vocab, seed, length=10**6) for seed in range(6)]  # two of them wait
    for job in endless:
        begun.engine.submit(job)
    begun.until(lambda: all(job.news for job in endless[:4]) and begun.engine.waiting == 2)
    for job in endless:
        job.cancelled = True
    begun.until(lambda: begun.engine.running == begun.engine.waiting == 0)
    begun.run(writing(vocab))


def test_a_long_prefix_does_not_hold_up_what_runs(vocab, run):
    begun = run(MXNetModel(network()), slots=4)
    short = writing(vocab, length=10**6)
    begun.engine.submit(short)
    begun.until(lambda: short.news)
    before, long = len(short.news), writing(vocab, prefix="abc " * 4000)
    begun.run(long)
    assert len(short.news) - before > 16_000 / module.CHUNK / 4  # a step for some chunks at least
    short.cancelled = True


def test_requests_beyond_those_that_may_wait_are_refused(vocab, run):
    begun = run(MXNetModel(network()), slots=1, waiting=2)
    jobs = [writing(vocab, seed, length=10**6) for seed in range(3)]
    begun.engine.submit(jobs[0])
    begun.until(lambda: jobs[0].news)
    for job in jobs[1:]:
        begun.engine.submit(job)
    with pytest.raises(Busy, match="2 requests are waiting already"):
        begun.engine.submit(writing(vocab))
    for job in jobs:
        job.cancelled = True


class Broken:
    """A model that fails, or returns what is not finite, once it is asked to."""

    def __init__(self, model):
        self._model, self.how = model, ""
        self.begin, self.arrays, self.states = model.begin, model.arrays, model.states

    def __call__(self, ids, states):
        if self.how == "fails":
            raise RuntimeError("out of memory")
        logits, states = self._model(ids, states)
        if self.how == "nan":
            logits[:, 0] = np.nan
        return logits, states


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_engine_that_dies_is_noticed(vocab, run):
    model = Broken(MXNetModel(network()))
    begun = run(model, slots=2)
    jobs = [writing(vocab, seed, length=10**6) for seed in range(4)]
    for job in jobs:
        begun.engine.submit(job)
    model.how = "fails"
    begun.until(lambda: all(job.over for job in jobs))
    assert not begun.engine.ready and {job.error for job in jobs} == {
        "the model has failed: RuntimeError: out of memory"
    }
    with pytest.raises(Failed, match="out of memory"):
        begun.engine.submit(writing(vocab))


def test_logits_that_are_not_finite_end_one_request_alone(vocab, run):
    model = Broken(MXNetModel(network()))
    begun = run(model, slots=4)
    bad, good = writing(vocab, length=10**6), writing(vocab, 1, length=10**6)
    for job in (bad, good):
        begun.engine.submit(job)
        begun.until(lambda job=job: job.news)
    model.how = "nan"
    begun.until(lambda: bad.over)
    model.how = ""
    before = len(good.news)
    begun.until(lambda: len(good.news) > before + 10)
    assert bad.error == "the model returned logits that are not finite" and not good.over
    good.cancelled = True


def test_a_score_that_is_not_finite_is_refused(vocab, run):
    model = Broken(MXNetModel(network()))
    begun = run(model, slots=4)
    model.how = "nan"
    job = Scoring(list(range(5)), time.monotonic() + 60)
    begun.engine.submit(job)
    begun.until(lambda: job.over)
    assert job.error == "the model returned logits that are not finite" and not job.news
