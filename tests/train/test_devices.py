"""One batch shared by several devices: what is learnt is what one device learns."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest
from mxnet import gluon

from deeprnn.config import TrainConfig
from deeprnn.data.batches import Batches
from deeprnn.models.language_model import LanguageModel
from deeprnn.testing import distance
from deeprnn.train import checkpoint, loop, saving

ONE, TWO, THREE = ([mx.cpu(number) for number in range(count)] for count in (1, 2, 3))
VOCABULARY, SEQUENCES = 9, 7  # 7 of them: no two devices have as many
STATE = {"seed": 0, "config": {}, "vocabulary": [], "versions": {}}


def batches(steps=20):
    rng = np.random.default_rng(2)
    jumps = rng.choice([1, 2, 5], size=SEQUENCES * (steps * 4 + 1), p=[0.7, 0.2, 0.1])
    return Batches((np.cumsum(jumps) % VOCABULARY).astype("int32"), SEQUENCES, 4)


def config(**changes):
    return TrainConfig(**{"epochs": 1, "lr": 0.02, "schedule": "constant", "clip": 0.1, **changes})


def network(contexts, dtype="float32", **options):
    mx.random.seed(5)
    net = LanguageModel(VOCABULARY, 6, 2, embedding_size=5, dtype=dtype, **options)
    net.initialize(mx.init.Uniform(0.5), ctx=contexts)
    net.hybridize(static_alloc=True, static_shape=True)
    return net


def weights(net):
    """Of the first device, where all have the same."""
    for parameter in net.collect_params().values():
        first, *others = (array.asnumpy() for array in parameter.list_data())
        assert all((first == other).all() for other in others)
    return np.concatenate([p.list_data()[0].asnumpy().ravel() for p in net._collect_params_with_prefix().values()])


def trained(contexts, *, dtype="float32", trainer=None, changes=None, **options):
    net = network(contexts, dtype, **options)
    before = weights(net)
    history = loop.fit(
        net, batches(), batches(3), config(**changes or {}), ctx=contexts, trainer=trainer and trainer(net)
    )
    assert distance(weights(net), before) > 0.1
    return weights(net), history.epochs[0]


@pytest.mark.parametrize(
    "cell, kvstore, contexts", [("rnn", "device", TWO), ("gru", "local", THREE), ("lstm", "device", THREE)]
)
def test_as_one_device(cell, kvstore, contexts):
    """The norm that is clipped is the whole gradient's: it is the same, and clips at nearly every step."""
    one, report = trained(ONE, cell=cell)
    several, same = trained(contexts, cell=cell, changes={"kvstore": kvstore})
    assert distance(several, one) < 1e-5
    assert same.train_loss == pytest.approx(report.train_loss, rel=1e-6)
    assert same.valid_loss == pytest.approx(report.valid_loss, rel=1e-5)
    assert same.grad_norm == pytest.approx(report.grad_norm, rel=1e-5) and report.grad_norm > 0.1


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_as_one_device_in_double_precision(cell):
    def trainer(net):
        options = {"learning_rate": 0.02, "wd": 0.0}
        return gluon.Trainer(net.collect_params(), "adam", options, kvstore="device", update_on_kvstore=False)

    double = {"cell": cell, "dtype": "float64", "trainer": trainer, "changes": {"clip": 0.0}}
    assert distance(trained(THREE, **double)[0], trained(ONE, **double)[0]) < 1e-10


def test_dropout_is_a_function_of_seed_and_split():
    first, again, elsewhere = (trained(contexts, dropout=0.3)[0] for contexts in (TWO, TWO, THREE))
    np.testing.assert_array_equal(first, again)
    assert distance(first, elsewhere) > 1e-3


@pytest.mark.parametrize("contexts, close", [(TWO, 0), (ONE, 1e-5), (THREE, 1e-5)], ids=["as before", "one", "three"])
def test_resumed(tmp_path, contexts, close):
    """With the same devices bit for bit, states included; others share the same batch."""

    class Keeper:
        signals = None

        def check(self):
            pass

        def is_due(self, step):
            return step == 7

        def save(self, position, report=None):
            if position.step == 7:
                saving.Checkpoints(tmp_path).save(net, trainer, position, STATE)

    net, steps = network(TWO, cell="lstm"), len(batches())
    trainer = loop.make_trainer(net, config(), steps)
    loop.fit(net, batches(), None, config(), ctx=TWO, trainer=trainer, keeper=Keeper())
    start = checkpoint.load(tmp_path)
    assert [state.shape for state in start.position.states[0]] == [(2, SEQUENCES, 6)] * 2
    resumed = network(contexts, cell="lstm")
    trainer = loop.make_trainer(resumed, config(), steps)
    start.restore(resumed, trainer)
    loop.fit(resumed, batches(), None, config(), ctx=contexts, trainer=trainer, start=start.position)
    assert distance(weights(resumed), weights(net)) <= close


def test_more_devices_than_sequences():
    alone = Batches(np.arange(40, dtype="int32") % VOCABULARY, 2, 4)
    with pytest.raises(ValueError, match=r"^a batch of 2 sequences cannot be shared by 3 devices$"):
        loop.fit(network(THREE), alone, None, config(), ctx=THREE)


def test_weights_go_to_a_store_before_gradients_do():
    """Else these could overtake them, and come back in their place; see `make_trainer`."""
    trainer = loop.make_trainer(network(ONE), config(), 5, mx.kv.create("local"))
    assert trainer._kv_initialized and not trainer._params_to_init
