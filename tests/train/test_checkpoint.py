"""A run on disk: what comes back, what is refused, and what a crash leaves."""

from __future__ import annotations

import json
import os
import re

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon

from deeprnn._util import files
from deeprnn.train import checkpoint, storage

STATE = {
    "epoch": 3,
    "step": 5,
    "best_epoch": 2,
    "best_loss": 1.1000000000000001,
    "seed": 7,
    "config": {"layers": 2, "split": [0.8, 0.1, 0.1], "lr": 1e-05},
    "vocabulary": ["<unk>", "a", "\n", "\x0b", "分", '"sha256": "', "\U0001f600"],
    "versions": {"deeprnn": "0.1.0"},
}


def make_net(contexts=None, units: int = 5, inputs: int = 4, seed: int = 1) -> gluon.nn.HybridSequential:
    mx.random.seed(seed)
    net = gluon.nn.HybridSequential()
    with net.name_scope():
        for _ in range(11):  # names of gluon's counters sort as 0, 1, 10, 2, ...
            net.add(gluon.nn.Dense(units, in_units=inputs, activation="tanh"))
            inputs = units
        net.add(gluon.nn.Dense(3, in_units=units))
    net.initialize(mx.init.Normal(0.5), ctx=contexts or mx.cpu())
    return net


def make_trainer(net, optimizer: str = "adam", **options) -> gluon.Trainer:
    options = {"learning_rate": 0.01, **options}
    return gluon.Trainer(net.collect_params(), optimizer, options, kvstore="device", update_on_kvstore=False)


def train(net, trainer, steps: int = 5, contexts=None, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        data = mx.nd.array(rng.normal(size=(8, 4)))
        parts = gluon.utils.split_and_load(data, contexts or [mx.cpu()])
        with autograd.record():
            losses = [(net(part) ** 2).sum() / 8 for part in parts]
        autograd.backward(losses)
        trainer.allreduce_grads()
        trainer.update(1)


def values(net, context=None) -> dict:
    return {name: p.data(context).asnumpy() for name, p in net._collect_params_with_prefix().items()}


def assert_same(one, other) -> None:
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


@pytest.fixture
def saved(tmp_path):
    """A folder with two checkpoints, best (three updates ago) and last."""
    net = make_net()
    trainer = make_trainer(net)
    train(net, trainer, 2)
    checkpoint.save(tmp_path, "best", net, trainer, {**STATE, "step": 2})
    train(net, trainer, 3, seed=1)
    checkpoint.save(tmp_path, "last", net, trainer, STATE)
    return tmp_path


# -- what comes back


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        ("adam", {}),
        ("sgd", {}),
        ("sgd", {"momentum": 0.9}),
        ("rmsprop", {}),
        ("rmsprop", {"centered": True}),
    ],
)
def test_training_goes_on_as_if_nothing_had_been(tmp_path, optimizer, options):
    net = make_net()
    trainer = make_trainer(net, optimizer, **options)
    train(net, trainer)
    checkpoint.save(tmp_path, "last", net, trainer, STATE)
    train(net, trainer, seed=1)

    again = make_net(seed=2)
    trainer_again = make_trainer(again, optimizer, **options)
    train(again, trainer_again, steps=1, seed=9)  # whatever was there before is replaced
    checkpoint.load(tmp_path, "last").restore(again, trainer_again)
    assert trainer_again.optimizer.num_update == 5
    train(again, trainer_again, seed=1)
    assert_same(values(again), values(net))
    assert trainer_again.optimizer.num_update == 10


def test_names_do_not_depend_on_gluons_counters(tmp_path):
    """dense9_, dense10_ sort otherwise than dense1_, dense2_, and the trainer's order with them."""
    net = make_net()
    trainer = make_trainer(net)
    train(net, trainer)
    checkpoint.save(tmp_path, "last", net, trainer, STATE)
    train(net, trainer, seed=1)
    for shift in range(3):
        again = gluon.nn.HybridSequential(prefix="")
        for index, units in enumerate([5] * 11 + [3]):
            layer = {"in_units": 5 if index else 4, "activation": "tanh" if units == 5 else None}
            again.add(gluon.nn.Dense(units, prefix=f"dense{index + 7 * shift}_", **layer))
        again.initialize()
        trainer_again = make_trainer(again)
        checkpoint.load(tmp_path, "last").restore(again, trainer_again)
        train(again, trainer_again, seed=1)
        assert_same(values(again), values(net))


def test_several_devices_hold_the_same(tmp_path):
    contexts = [mx.cpu(0), mx.cpu(1)]
    net = make_net(contexts)
    trainer = make_trainer(net)
    train(net, trainer, contexts=contexts)
    checkpoint.save(tmp_path, "last", net, trainer, STATE)
    train(net, trainer, contexts=contexts, seed=1)

    again = make_net(contexts, seed=2)
    trainer_again = make_trainer(again)
    checkpoint.load(tmp_path, "last").restore(again, trainer_again)
    for context, updater in zip(contexts, trainer_again._updaters):
        assert {array.context for state in updater.states.values() for array in state} == {context}
    train(again, trainer_again, contexts=contexts, seed=1)
    for context in contexts:
        assert_same(values(again, context), values(net, context))


def test_the_state_comes_back(saved):
    loaded = checkpoint.load(saved, "last")
    assert loaded.state == STATE
    assert (loaded.epoch, loaded.step, loaded.best_epoch, loaded.best_loss) == (3, 5, 2, 1.1000000000000001)
    assert checkpoint.load(str(saved), "best").step == 2


def test_into_a_network_that_is_not_initialized(tmp_path):
    def make(inputs):
        net = gluon.nn.HybridSequential()
        net.add(gluon.nn.Dense(4, in_units=inputs), gluon.nn.BatchNorm(in_channels=4), gluon.nn.Dense(2, in_units=4))
        return net

    net = make(3)
    net.initialize(mx.init.Normal(1))
    checkpoint.save(tmp_path, "last", net, None, STATE)
    for inputs in (3, 0):  # 0: not known before the first batch
        again = make(inputs)
        checkpoint.load(tmp_path, "last").restore(again, ctx=mx.cpu())
        assert_same(values(again), values(net))
        data = mx.nd.random.normal(shape=(2, 3))
        np.testing.assert_array_equal(again(data).asnumpy(), net(data).asnumpy())


def test_a_hybridized_network_uses_what_was_restored(saved):
    net = make_net(seed=2)
    net.hybridize(static_alloc=True, static_shape=True)
    data = mx.nd.random.normal(shape=(2, 4))
    before = net(data).asnumpy()
    checkpoint.load(saved, "last").restore(net)
    again = make_net(seed=3)
    checkpoint.load(saved, "last").restore(again)
    assert (net(data).asnumpy() != before).any()
    np.testing.assert_allclose(net(data).asnumpy(), again(data).asnumpy(), rtol=1e-6)


def test_a_shared_parameter_is_written_once(tmp_path):
    def make():
        net = gluon.nn.HybridSequential()
        net.add(gluon.nn.Dense(4, in_units=4))
        net.add(gluon.nn.Dense(4, in_units=4, params=net[0].params))
        net.initialize(mx.init.Normal(1))
        return net

    net, again = make(), make()
    checkpoint.save(tmp_path, "last", net, None, STATE)
    loaded = checkpoint.load(tmp_path, "last")
    assert list(loaded.parameters) == ["0.weight", "0.bias"]
    loaded.restore(again)
    assert_same(values(again), values(net))


def test_plain_arrays_that_numpy_can_read(saved):
    manifest = json.loads((saved / "last.json").read_text("utf-8"))
    assert manifest["state"] == STATE
    with np.load(saved / manifest["files"]["parameters"]["file"], allow_pickle=False) as arrays:
        assert arrays["0.weight"].shape == (5, 4)
    with np.load(saved / manifest["files"]["optimizer"]["file"], allow_pickle=False) as arrays:
        assert {"0.weight/0", "0.weight/1", "11.bias/0"} <= set(arrays)
    assert manifest["optimizer"]["name"] == "adam"
    assert manifest["optimizer"]["num_update"] == 5
    assert set(manifest["optimizer"]["update_counts"].values()) == {5}


# -- files


def names(folder) -> list:
    return sorted(path.name for path in folder.iterdir())


def files_of(folder, name) -> list:
    """The manifest of a checkpoint and the two files that it names."""
    entries = json.loads((folder / f"{name}.json").read_text("utf-8"))["files"]
    return [folder / f"{name}.json", *(folder / entries[kind]["file"] for kind in ("parameters", "optimizer"))]


def test_equal_arrays_are_one_file(tmp_path):
    net = make_net()
    trainer = make_trainer(net)
    train(net, trainer)
    for name in ("best", "last"):
        checkpoint.save(tmp_path, name, net, trainer, STATE)
    assert len(list(tmp_path.glob("*.npz"))) == 2
    assert len(list(tmp_path.glob("*.json"))) == 2


def test_what_no_manifest_names_is_removed(saved):
    (saved / "parameters-0123456789abcdef.npz").write_bytes(b"from a crash")
    (saved / "last.json.123.tmp").write_bytes(b"from a crash")
    (saved / "mine.npz").write_bytes(b"not ours")
    old = files_of(saved, "last")[1:]
    net = make_net(seed=5)
    trainer = make_trainer(net)
    train(net, trainer)
    checkpoint.save(saved, "last", net, trainer, STATE)
    used = files_of(saved, "best") + files_of(saved, "last")
    assert names(saved) == sorted(path.name for path in [saved / "mine.npz", *used])
    assert not any(path.exists() for path in old)


def test_nothing_is_removed_beside_a_damaged_manifest(saved):
    (saved / "best.json").write_text("{}")
    before = set(names(saved))
    checkpoint.save(saved, "last", make_net(seed=5), None, STATE)
    assert before < set(names(saved))


def test_a_damaged_file_of_the_same_content_is_written_anew(saved):
    net = make_net()
    trainer = make_trainer(net)
    checkpoint.load(saved, "last").restore(net, trainer)
    for path in saved.glob("*.npz"):
        path.write_bytes(b"damaged")
    checkpoint.save(saved, "last", net, trainer, STATE)
    assert_same(checkpoint.load(saved, "last").parameters, values(net))


@pytest.mark.parametrize("crash_at", ["parameters", "optimizer", "last.json"])
def test_a_crash_leaves_the_checkpoint_before(saved, monkeypatch, crash_at):
    before = checkpoint.load(saved, "last")
    net = make_net(seed=5)
    trainer = make_trainer(net)
    train(net, trainer, seed=5)
    replace = os.replace

    def crash(source, target):
        if os.path.basename(target).startswith(crash_at):
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(saved, "last", net, trainer, {**STATE, "epoch": 4})
    monkeypatch.undo()
    after = checkpoint.load(saved, "last")
    assert after.state == before.state
    assert_same(after.parameters, before.parameters)
    assert_same(after.optimizer_arrays, before.optimizer_arrays)
    checkpoint.save(saved, "last", net, trainer, {**STATE, "epoch": 4})
    assert checkpoint.load(saved, "last").epoch == 4
    assert len(names(saved)) == 6  # and what the crash left is gone


# -- what is refused


def one_line(raised) -> str:
    message = str(raised.value)
    assert "\n" not in message
    return message


def test_a_flipped_bit_is_always_found(saved):
    """At 50 places in each kind of file: the manifest, and the arrays of parameters and optimizer."""
    rng = np.random.default_rng(0)
    for path in files_of(saved, "last"):
        content = path.read_bytes()
        for place in rng.integers(8 * len(content), size=50):
            damaged = bytearray(content)
            damaged[place // 8] ^= 1 << (place % 8)
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match=r"damaged: its SHA-256 should be .* and is") as raised:
                checkpoint.load(saved, "last")
            assert str(path) in one_line(raised)
        path.write_bytes(content)
    checkpoint.load(saved, "last")


def test_every_byte_of_the_seal_counts(saved):
    """The manifest's last entry is the hash of the rest: its own digits, quotes and line ends are held as well."""
    path = saved / "last.json"
    content = path.read_bytes()
    for place in range(len(content) - 90, len(content)):
        for bit in range(8):
            damaged = bytearray(content)
            damaged[place] ^= 1 << bit
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match="damaged"):
                checkpoint.load(saved, "last")


@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_a_file_cut_short_is_found(saved, keep):
    for path in files_of(saved, "last"):
        content = path.read_bytes()
        path.write_bytes(content[:keep])
        with pytest.raises(ValueError, match="damaged"):
            checkpoint.load(saved, "last")
        path.write_bytes(content)


def test_a_missing_manifest(saved, tmp_path):
    with pytest.raises(ValueError, match=re.escape(f"{saved / 'newest.json'} is missing: there is best, last")):
        checkpoint.load(saved, "newest")
    with pytest.raises(ValueError, match="is missing: the folder has no checkpoint"):
        checkpoint.load(tmp_path / "elsewhere", "last")


def test_a_missing_array_file(saved):
    for path in saved.glob("parameters-*.npz"):
        path.unlink()
    with pytest.raises(ValueError, match=r"parameters-[0-9a-f]{16}\.npz is missing"):
        checkpoint.load(saved, "last")


def test_a_pickle_is_not_read(saved):
    """Even with every hash right: arrays of objects would run whatever their maker wrote into them."""
    path = saved / "evil.npz"
    np.savez(path, **{"0.weight": np.array([print], dtype=object)})
    manifest = storage.read_manifest(saved / "last.json")
    manifest["files"]["parameters"] = {"file": path.name, "sha256": storage.sha256(path.read_bytes())}
    del manifest["sha256"]
    storage.write_manifest(saved / "last.json", manifest)
    with pytest.raises(ValueError, match=r"evil\.npz does not contain plain arrays: .*allow_pickle=False") as raised:
        checkpoint.load(saved, "last")
    one_line(raised)


def test_another_format(saved, monkeypatch):
    monkeypatch.setattr(storage, "FORMAT", 2)
    with pytest.raises(ValueError, match="has format 1, but this version of deeprnn reads format 2"):
        checkpoint.load(saved, "last")


def test_another_size_names_the_parameter_and_both_shapes(saved):
    net = make_net(units=6)
    before = values(net)
    with pytest.raises(
        ValueError, match=r"parameter '0.weight' has shape \(5, 4\) in .*last.json and \(6, 4\)"
    ) as raised:
        checkpoint.load(saved, "last").restore(net)
    one_line(raised)
    assert_same(values(net), before)


def test_another_model_names_the_parameter(saved):
    net = make_net()
    net.add(gluon.nn.Dense(3, in_units=3))
    net.initialize(mx.init.Normal(1), force_reinit=True)
    with pytest.raises(ValueError, match=r"has no parameter '12\.weight', and the network has one"):
        checkpoint.load(saved, "last").restore(net)
    net = gluon.nn.Dense(3)
    net.initialize()
    with pytest.raises(ValueError, match="has no parameter 'weight', and the network has one"):
        checkpoint.load(saved, "last").restore(net)
    net = gluon.nn.HybridSequential()
    with pytest.raises(ValueError, match=r"has a parameter '0.weight', and the network has none"):
        checkpoint.load(saved, "last").restore(net)


def test_another_dtype(saved):
    net = make_net()
    net.cast("float64")
    with pytest.raises(ValueError, match=r"'0.weight' is float32 in .* and float64 in the network"):
        checkpoint.load(saved, "last").restore(net)


def test_another_vocabulary(saved):
    loaded, net = checkpoint.load(saved, "last"), make_net()
    loaded.restore(net, vocabulary=STATE["vocabulary"])
    with pytest.raises(ValueError, match=r"with a vocabulary of 7 symbols, and this one has 6"):
        loaded.restore(net, vocabulary=STATE["vocabulary"][:-1])
    with pytest.raises(ValueError, match=r"another vocabulary: symbol 1 is 'a' there and 'b' here"):
        loaded.restore(net, vocabulary=["<unk>", "b", *STATE["vocabulary"][2:]])


def test_another_optimizer(saved):
    net = make_net(seed=5)
    before = values(net)
    with pytest.raises(
        ValueError, match="with the optimizer adam, and this one is sgd: continue with optimizer='adam'"
    ):
        checkpoint.load(saved, "last").restore(net, make_trainer(net, "sgd"))
    assert_same(values(net), before)


def test_a_checkpoint_without_an_optimizer(tmp_path):
    net = make_net()
    checkpoint.save(tmp_path, "best", net, None, STATE)
    with pytest.raises(ValueError, match="has no optimizer state"):
        checkpoint.load(tmp_path, "best").restore(net, make_trainer(net))


def test_a_state_that_lacks_something(tmp_path):
    with pytest.raises(ValueError, match="must have the keys epoch, seed"):
        state = {key: value for key, value in STATE.items() if key not in ("epoch", "seed")}
        checkpoint.save(tmp_path, "last", make_net(), None, state)
    assert names(tmp_path) == []


# -- files that are whole or not there


def test_atomic_files(tmp_path, monkeypatch):
    path = tmp_path / "summary.json"
    files.write_json_atomic(path, {"text": "分开", "none": None})
    assert json.loads(path.read_text("utf-8")) == {"text": "分开", "none": None}
    files.write_text_atomic(str(path), "new\n")
    assert path.read_bytes() == b"new\n"
    assert names(tmp_path) == ["summary.json"]

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_text_atomic(path, "newer\n")
    assert path.read_bytes() == b"new\n"
    assert names(tmp_path) == ["summary.json"]


def test_json_has_no_infinity(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        files.write_json_atomic(tmp_path / "summary.json", {"loss": float("inf")})
    assert names(tmp_path) == []
