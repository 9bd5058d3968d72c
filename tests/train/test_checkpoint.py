"""A run on disk: what comes back, what is refused, and what a crash leaves."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import random
import re
import zipfile

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon

from deeprnn._util import files
from deeprnn.train import checkpoint, saving, storage
from deeprnn.train.optimizer_state import named_parameters, optimizer_state
from deeprnn.train.position import Position
from deeprnn.train.progress import Diverged

STATE = {
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


def save(folder, net, trainer=None, step: int = 5, *, is_best: bool = False, start=None, **changes):
    """A checkpoint after so many steps, as the first that is written to the folder by a process."""
    position = Position(epoch=3, batch=2, step=step, best_epoch=2, best_loss=1.1000000000000001, **changes)
    checkpoints = saving.Checkpoints(folder, start)
    return checkpoints.save(net, trainer or make_trainer(net), position, STATE, is_best=is_best)


def values(net, context=None) -> dict:
    return {name: p.data(context).asnumpy() for name, p in net._collect_params_with_prefix().items()}


def assert_same(one, other) -> None:
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


@pytest.fixture
def saved(tmp_path):
    """A folder with two checkpoints, the first of which has the best network."""
    net = make_net()
    trainer = make_trainer(net)
    train(net, trainer, 2)
    save(tmp_path, net, trainer, step=2, is_best=True)
    train(net, trainer, 3, seed=1)
    save(tmp_path, net, trainer, start=checkpoint.load(tmp_path))
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
    save(tmp_path, net, trainer)
    train(net, trainer, seed=1)

    again = make_net(seed=2)
    trainer_again = make_trainer(again, optimizer, **options)
    train(again, trainer_again, steps=1, seed=9)  # whatever was there before is replaced
    checkpoint.load(tmp_path).restore(again, trainer_again)
    assert trainer_again.optimizer.num_update == 5
    train(again, trainer_again, seed=1)
    assert_same(values(again), values(net))
    assert trainer_again.optimizer.num_update == 10


def test_names_do_not_depend_on_gluons_counters(tmp_path):
    """dense9_, dense10_ sort otherwise than dense1_, dense2_, and the trainer's order with them."""
    net = make_net()
    trainer = make_trainer(net)
    train(net, trainer)
    save(tmp_path, net, trainer)
    train(net, trainer, seed=1)
    for shift in range(3):
        again = gluon.nn.HybridSequential(prefix="")
        for index, units in enumerate([5] * 11 + [3]):
            layer = {"in_units": 5 if index else 4, "activation": "tanh" if units == 5 else None}
            again.add(gluon.nn.Dense(units, prefix=f"dense{index + 7 * shift}_", **layer))
        again.initialize()
        trainer_again = make_trainer(again)
        checkpoint.load(tmp_path).restore(again, trainer_again)
        train(again, trainer_again, seed=1)
        assert_same(values(again), values(net))


def test_several_devices_hold_the_same(tmp_path):
    contexts = [mx.cpu(0), mx.cpu(1)]
    net = make_net(contexts)
    trainer = make_trainer(net)
    train(net, trainer, contexts=contexts)
    save(tmp_path, net, trainer)
    train(net, trainer, contexts=contexts, seed=1)

    again = make_net(contexts, seed=2)
    trainer_again = make_trainer(again)
    checkpoint.load(tmp_path).restore(again, trainer_again)
    for context, updater in zip(contexts, trainer_again._updaters):
        assert {array.context for state in updater.states.values() for array in state} == {context}
    train(again, trainer_again, contexts=contexts, seed=1)
    for context in contexts:
        assert_same(values(again, context), values(net, context))


def test_the_state_comes_back(saved):
    loaded = checkpoint.load(saved)
    assert STATE.items() <= loaded.state.items()
    position = loaded.position
    assert (loaded.epoch, loaded.step, position.best_epoch, position.best_loss) == (3, 5, 2, 1.1000000000000001)
    best = checkpoint.load(str(saved), "best")
    assert (best.step, best.optimizer, best.damaged) == (2, None, ())
    assert (best.parameters["0.weight"] != loaded.parameters["0.weight"]).any()


def test_the_position_comes_back(tmp_path):
    states = [mx.nd.random.normal(shape=(2, 3, 4)), mx.nd.random.normal(shape=(2, 3, 4))]
    sums = {"tokens": 70, "loss_sum": 1 / 3, "norm_sum": 2 / 7, "seconds": 0.1}
    save(tmp_path, make_net(), **sums, states=[states])
    position = checkpoint.load(tmp_path).position
    assert {name: getattr(position, name) for name in sums} == sums
    assert (position.epoch, position.batch) == (3, 2)
    for one, other in zip(position.states[0], states):
        np.testing.assert_array_equal(one.asnumpy(), other.asnumpy())


def test_random_numbers_come_back(tmp_path):
    random.gauss(0, 1)  # which makes two, and keeps one
    np.random.randn()
    save(tmp_path, make_net())
    expected = [random.gauss(0, 1), random.random(), np.random.randn(), np.random.rand()]
    net = make_net()
    checkpoint.load(tmp_path).restore(net, make_trainer(net))
    assert [random.gauss(0, 1), random.random(), np.random.randn(), np.random.rand()] == expected


def test_before_the_first_epoch_is_over_the_last_network_is_the_best(tmp_path):
    save(tmp_path, make_net(), step=1)
    save(tmp_path, make_net(seed=2), step=2)
    assert_same(checkpoint.load(tmp_path, "best").parameters, values(make_net(seed=2)))


def test_a_run_of_the_version_before(tmp_path):
    """Format 1: the checkpoints `last` and `best`, after an epoch, with names of their own for the arrays."""
    net = make_net()
    trainer = make_trainer(net)
    train(net, trainer)
    whole = {**STATE, "epoch": 3, "step": 5, "best_epoch": 2, "best_loss": 1.5}
    optimizer, arrays = optimizer_state(named_parameters(net), trainer)
    for name, state, of in (("last", whole, net), ("best", {**whole, "epoch": 2, "step": 3}, make_net(seed=2))):
        files = {"parameters": storage.write_arrays(tmp_path, "parameters", values(of))}
        files |= {"optimizer": storage.write_arrays(tmp_path, "optimizer", arrays)} if name == "last" else {}
        for entry in files.values():
            del entry["size"]
        manifest = {"format": 1, "state": state, "optimizer": optimizer if name == "last" else None, "files": files}
        storage.write_manifest(tmp_path / f"{name}.json", manifest)
    start = checkpoint.load(tmp_path)
    assert (start.epoch, start.step, start.position.batch, start.position.best_loss) == (3, 5, 0, 1.5)
    again = make_net(seed=3)
    trainer_again = make_trainer(again)
    start.restore(again, trainer_again)
    for one, other in ((net, trainer), (again, trainer_again)):
        train(one, other, seed=1)
    assert_same(values(again), values(net))
    save(tmp_path, again, trainer_again, step=6, start=start)
    assert [path.name for path in tmp_path.glob("*.json")] == ["step-000000006.json"]
    assert_same(checkpoint.load(tmp_path, "best").parameters, values(make_net(seed=2)))


def test_into_a_network_that_is_not_initialized(tmp_path):
    def make(inputs):
        net = gluon.nn.HybridSequential()
        net.add(gluon.nn.Dense(4, in_units=inputs), gluon.nn.BatchNorm(in_channels=4), gluon.nn.Dense(2, in_units=4))
        return net

    net = make(3)
    net.initialize(mx.init.Normal(1))
    save(tmp_path, net, make_trainer(net))
    for inputs in (3, 0):  # 0: not known before the first batch
        again = make(inputs)
        checkpoint.load(tmp_path).restore(again, ctx=mx.cpu())
        assert_same(values(again), values(net))
        data = mx.nd.random.normal(shape=(2, 3))
        np.testing.assert_array_equal(again(data).asnumpy(), net(data).asnumpy())


def test_a_hybridized_network_uses_what_was_restored(saved):
    net = make_net(seed=2)
    net.hybridize(static_alloc=True, static_shape=True)
    data = mx.nd.random.normal(shape=(2, 4))
    before = net(data).asnumpy()
    checkpoint.load(saved).restore(net)
    again = make_net(seed=3)
    checkpoint.load(saved).restore(again)
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
    save(tmp_path, net)
    loaded = checkpoint.load(tmp_path)
    assert list(loaded.parameters) == ["0.weight", "0.bias"]
    loaded.restore(again)
    assert_same(values(again), values(net))


def test_plain_arrays_that_numpy_can_read(saved):
    manifest = json.loads((saved / "step-000000005.json").read_text("utf-8"))
    assert STATE.items() <= manifest["state"].items()
    with np.load(saved / manifest["files"]["parameters"]["file"], allow_pickle=False) as arrays:
        assert arrays["0.weight"].shape == (5, 4)
    with np.load(saved / manifest["files"]["training"]["file"], allow_pickle=False) as arrays:
        assert {"optimizer/0.weight/0", "optimizer/0.weight/1", "optimizer/11.bias/0"} <= set(arrays)
    assert manifest["optimizer"]["name"] == "adam"
    assert manifest["optimizer"]["num_update"] == 5
    assert set(manifest["optimizer"]["update_counts"].values()) == {5}


# -- files


def names(folder) -> list:
    return sorted(path.name for path in folder.iterdir())


def newest(folder):
    return max(folder.glob("step-*.json"))


def files_of(folder) -> list:
    """The manifest of the newest checkpoint and the two files that it names."""
    entries = json.loads(newest(folder).read_text("utf-8"))["files"]
    return [newest(folder), *(folder / entries[kind]["file"] for kind in ("parameters", "training"))]


def test_equal_arrays_are_one_file(tmp_path):
    net = make_net()
    trainer = make_trainer(net)
    train(net, trainer)
    for step in (1, 2):
        save(
            tmp_path, net, trainer, step=step, is_best=step == 1, start=checkpoint.load(tmp_path) if step > 1 else None
        )
    assert len(list(tmp_path.glob("*.npz"))) == 2
    assert len(list(tmp_path.glob("*.json"))) == 2


def test_the_last_few_and_the_best_are_kept(tmp_path):
    net = make_net()
    trainer = make_trainer(net)
    checkpoints = saving.Checkpoints(tmp_path)
    for step in range(1, 8):
        train(net, trainer, 1, seed=step)
        checkpoints.save(net, trainer, Position(step=step), STATE, is_best=step == 2)
        if step == 2:
            best = values(net)
    assert sorted(tmp_path.glob("*.json")) == [tmp_path / f"step-{step:09d}.json" for step in (5, 6, 7)]
    assert len(list(tmp_path.glob("parameters-*"))) == storage.KEPT + 1
    assert len(list(tmp_path.glob("training-*"))) == storage.KEPT
    assert_same(checkpoint.load(tmp_path, "best").parameters, best)


def test_what_no_manifest_names_is_removed(saved):
    (saved / "parameters-0123456789abcdef.npz").write_bytes(b"from a crash")
    (saved / "step-000000006.json.123.tmp").write_bytes(b"from a crash")
    (saved / "mine.npz").write_bytes(b"not ours")
    before = set(names(saved))
    save(saved, make_net(seed=5), step=6)
    gone = before - set(names(saved))
    assert gone == {"parameters-0123456789abcdef.npz", "step-000000006.json.123.tmp"}


def test_nothing_is_removed_beside_a_damaged_manifest(saved):
    (saved / "step-000000002.json").write_text("{}")
    before = set(names(saved))
    save(saved, make_net(seed=5), step=6)
    assert before < set(names(saved))


def test_checkpoints_of_a_course_that_was_left_are_removed(saved):
    """Of later steps: damaged ones, or those from before a rollback."""
    newest(saved).write_text("{}")
    start = checkpoint.load(saved)
    assert start.step == 2 and "step-000000005.json is damaged" in start.damaged[0]
    save(saved, make_net(seed=5), step=3, start=start)
    assert [path.name for path in sorted(saved.glob("*.json"))] == ["step-000000002.json", "step-000000003.json"]


def test_a_damaged_file_of_the_same_content_is_written_anew(saved):
    net = make_net()
    trainer = make_trainer(net)
    start = checkpoint.load(saved)
    start.restore(net, trainer)
    for path in saved.glob("parameters-*.npz"):
        path.write_bytes(b"damaged")
    save(saved, net, trainer, step=6, is_best=True)
    assert_same(checkpoint.load(saved).parameters, values(net))


def test_weights_that_are_not_finite_are_not_saved(saved):
    net = make_net()
    net[3].weight.data()[1, 2] = float("nan")
    before = names(saved)
    with pytest.raises(Diverged, match=r"3\.weight has values that are not finite after step 6"):
        save(saved, net, step=6)
    assert names(saved) == before


@pytest.mark.parametrize("crash_at", ["parameters", "training", "step"])
def test_a_crash_leaves_the_checkpoint_before(saved, monkeypatch, crash_at):
    before = checkpoint.load(saved)
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
        save(saved, net, trainer, step=6)
    monkeypatch.undo()
    after = checkpoint.load(saved)
    assert after.state == before.state
    assert_same(after.parameters, before.parameters)
    assert_same(after.optimizer_arrays, before.optimizer_arrays)
    save(saved, net, trainer, step=6)
    assert checkpoint.load(saved).step == 6
    assert not list(saved.glob("*.tmp"))


# -- what is refused


def one_line(raised) -> str:
    message = str(raised.value)
    assert "\n" not in message
    return message


def test_a_flipped_bit_is_always_found(saved):
    """At 50 places in each kind of file, manifest and arrays: the checkpoint before is used."""
    rng = np.random.default_rng(0)
    for path in files_of(saved):
        content = path.read_bytes()
        for place in rng.integers(8 * len(content), size=50):
            damaged = bytearray(content)
            damaged[place // 8] ^= 1 << (place % 8)
            path.write_bytes(damaged)
            found = checkpoint.load(saved)
            assert found.step == 2
            assert f"{path} is damaged: its SHA-256 should be" in found.damaged[0]
        path.write_bytes(content)
    assert checkpoint.load(saved).step == 5


def test_where_all_are_damaged_each_is_named(saved):
    for path in saved.glob("*.json"):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(
        ValueError, match=r"step-000000005\.json is damaged: .*; .*step-000000002\.json is damaged: "
    ) as raised:
        checkpoint.load(saved)
    one_line(raised)


def test_a_damaged_best_network_is_found_before_it_is_needed(saved):
    best = {path.name for path in saved.glob("parameters-*")} - {path.name for path in files_of(saved)}
    (saved / best.pop()).write_bytes(b"damaged")
    with pytest.raises(ValueError, match="is damaged"):
        checkpoint.load(saved)


def test_every_byte_of_the_seal_counts(saved):
    """The manifest's last entry is the hash of the rest: its own digits, quotes and line ends are held as well."""
    path = newest(saved)
    (saved / "step-000000002.json").unlink()
    content = path.read_bytes()
    for place in range(len(content) - 90, len(content)):
        for bit in range(8):
            damaged = bytearray(content)
            damaged[place] ^= 1 << bit
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match="damaged"):
                checkpoint.load(saved)


@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_a_file_cut_short_is_found(saved, keep):
    (saved / "step-000000002.json").unlink()
    for path in files_of(saved):
        content = path.read_bytes()
        path.write_bytes(content[:keep])
        with pytest.raises(ValueError, match="damaged"):
            checkpoint.load(saved)
        path.write_bytes(content)


def test_a_folder_without_checkpoints(tmp_path):
    with pytest.raises(ValueError, match="elsewhere has no checkpoint"):
        checkpoint.load(tmp_path / "elsewhere")


def test_a_missing_array_file(saved):
    for path in saved.glob("parameters-*.npz"):
        path.unlink()
    with pytest.raises(ValueError, match=r"parameters-[0-9a-f]{16}\.npz is missing"):
        checkpoint.load(saved)


def forged(folder, **changes) -> None:
    """Write the newest manifest anew with these changes and a hash that is right."""
    manifest = json.loads(newest(folder).read_text("utf-8"))
    storage.write_manifest(newest(folder), {**manifest, **changes})
    for path in set(folder.glob("step-*.json")) - {newest(folder)}:
        path.unlink()


def forged_arrays(folder, content: bytes) -> None:
    """Let the newest manifest name an array file of this content, with hash and size that are right."""
    name = f"parameters-{storage.sha256(content)[:16]}.npz"
    (folder / name).write_bytes(content)
    files = json.loads(newest(folder).read_text("utf-8"))["files"]
    entry = {"file": name, "size": len(content), "sha256": storage.sha256(content)}
    forged(folder, files={**files, "parameters": entry}, best=None)


def archive(*members: tuple, compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, content in members:
            file.writestr(name, content)
    return buffer.getvalue()


def array_file(array, header: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=True)
    content = buffer.getvalue()
    return content[:8] + len(header).to_bytes(2, "little") + header + content[128:] if header else content


HEADER = "{'descr': '<f4', 'fortran_order': False, 'shape': (%s), }\n"
EVIL_ARRAYS = {
    "pickle": archive(("0.weight.npy", array_file(np.array([print], dtype=object)))),
    "bomb": archive(("0.weight.npy", b"0" * 10**7), compression=zipfile.ZIP_DEFLATED),
    "claims 40 GB": archive(("0.weight.npy", array_file(np.zeros(4, "f4"), (HEADER % "10000000000,").encode()))),
    "negative": archive(("0.weight.npy", array_file(np.zeros(4, "f4"), (HEADER % "-4, -1").encode()))),
    "code": archive(("0.weight.npy", array_file(np.zeros(4, "f4"), b"__import__('os').system('true')\n"))),
    "nested": archive(("0.weight.npy", array_file(np.zeros(4, "f4"), b"(" * 60000))),
    "NaN": archive(("0.weight.npy", array_file(np.array([np.nan], "f4")))),
    "traversal": archive(("../../outside.npy", b"0"), ("/etc/outside", b"0")),
    "empty": b"",
    "no archive": b"PK\x05\x06",
}


@pytest.mark.parametrize("kind", EVIL_ARRAYS)
def test_hostile_arrays_are_refused_although_their_hash_is_right(saved, kind):
    forged_arrays(saved, EVIL_ARRAYS[kind])
    with pytest.raises(ValueError, match=r"parameters-[0-9a-f]{16}\.npz does not contain plain arrays: ") as raised:
        checkpoint.load(saved)
    one_line(raised)


def test_members_that_overlap_are_refused(saved):
    """As in a bomb that names the same bytes many times."""
    member = array_file(np.zeros(100, "f4"))
    content = bytearray(archive(*((f"{n}.npy", member) for n in range(20))))
    directory = content.index(b"PK\x01\x02")
    for place in range(directory, len(content) - 22):
        if content[place : place + 4] == b"PK\x01\x02":
            content[place + 42 : place + 46] = bytes(4)  # where the member begins
    forged_arrays(saved, bytes(content[: len(member)] + content[directory:]))
    with pytest.raises(ValueError, match="does not contain plain arrays"):
        checkpoint.load(saved)


ENTRY = {"file": "parameters-0123456789abcdef.npz", "size": 1, "sha256": "0" * 64}


@pytest.mark.parametrize(
    "changes",
    [
        {"files": None},
        {"files": {}},
        {"files": {"parameters": {**ENTRY, "file": "../../etc/passwd"}, "training": ENTRY}},
        {"files": {"parameters": {**ENTRY, "file": "/dev/zero"}, "training": ENTRY}},
        {"files": {"parameters": {**ENTRY, "size": -1}, "training": ENTRY}},
        {"files": {"parameters": {**ENTRY, "size": 10**30}, "training": ENTRY}},
        {"files": {"parameters": {**ENTRY, "sha256": 7}, "training": ENTRY}},
        {"files": {"parameters": [ENTRY], "training": ENTRY}},
        {"best": 3},
        {"best": {"epoch": "x", "step": 1}},
        {"state": []},
        {"state": {**STATE, "epoch": -1}},
        {"state": {**STATE, "step": 1.5}},
        {"state": {**STATE, "loss_sum": "much"}},
        {"state": {**STATE, "vocabulary": [1]}},
        {"state": {**STATE, "vocabulary": {}}},
        {"state": {**STATE, "config": []}},
        {"optimizer": 5},
        {"optimizer": {"name": "adam", "num_update": 10**30, "update_counts": {}}},
        {"optimizer": {"name": "adam", "num_update": 1, "update_counts": {"0.weight": "x"}}},
        {"format": 3},
        {"format": "x"},
    ],
    ids=str,
)
def test_hostile_manifests_are_refused_although_their_hash_is_right(saved, changes):
    forged(saved, **changes)
    with pytest.raises(ValueError, match=r"step-000000005\.json|parameters-0123456789abcdef\.npz") as raised:
        checkpoint.load(saved)
    one_line(raised)


@pytest.mark.parametrize("name", ["last", "best"])
@pytest.mark.parametrize("change", ["lacking", "of another type"])
@pytest.mark.parametrize("part, key", [("best", "epoch"), ("best", "step"), ("optimizer", "name")])
def test_a_manifest_without_a_value_that_is_needed_is_damaged(saved, part, key, change, name):
    entry = json.loads(newest(saved).read_text("utf-8"))[part]
    del entry[key]
    forged(saved, **{part: entry if change == "lacking" else {key: [], **entry}})
    with pytest.raises(ValueError, match=rf"step-000000005\.json is damaged: its {part}.* is {{'") as raised:
        checkpoint.load(saved, name)
    one_line(raised)


@pytest.mark.parametrize(
    "text", ['{"format": NaN}', "[" * 100_000, "{}", "[]", '"', "1" * 5000], ids=lambda each: each[:9]
)
def test_json_that_is_no_manifest(tmp_path, text):
    seal = f'{text[:-1]},\n "sha256": ""}}\n'.encode()
    before, mark, after = seal.rpartition(storage._SEAL)
    digest = storage.sha256(before + mark + after).encode()
    (tmp_path / "step-000000001.json").write_bytes(before + mark + digest + after)
    with pytest.raises(ValueError, match=r"step-000000001\.json"):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "device"])
def test_only_files_are_read(saved, tmp_path, kind):
    (saved / "step-000000002.json").unlink()
    for path in files_of(saved):
        aside = path.rename(path.with_suffix(".aside"))
        if kind == "link":
            path.symlink_to(aside)
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "device":
            path.symlink_to("/dev/zero")
        else:
            path.mkdir()
        with pytest.raises(ValueError, match=re.escape(str(path))):
            checkpoint.load(saved)
        path.rmdir() if kind == "folder" else path.unlink()
        aside.rename(path)


@pytest.mark.parametrize("change", ["lacking", "shape", "foreign"])
def test_an_optimizer_state_that_does_not_fit_changes_nothing(saved, change):
    loaded = checkpoint.load(saved)
    arrays = dict(loaded.optimizer_arrays)
    if change == "lacking":
        del arrays["3.weight/1"]
    elif change == "shape":
        arrays["3.weight/1"] = arrays["3.weight/1"][:1]
    else:
        arrays["99.weight/0"] = arrays["3.weight/0"]
    net = make_net(seed=5)
    before = values(net)
    with pytest.raises(ValueError, match=r"another state of the optimizer than adam needs for '\d+\.weight/[01]'"):
        dataclasses.replace(loaded, optimizer_arrays=arrays).restore(net, make_trainer(net))
    assert_same(values(net), before)


def test_another_size_names_the_parameter_and_both_shapes(saved):
    net = make_net(units=6)
    before = values(net)
    with pytest.raises(
        ValueError, match=r"parameter '0.weight' has shape \(5, 4\) in .*step-000000005.json and \(6, 4\)"
    ) as raised:
        checkpoint.load(saved).restore(net)
    one_line(raised)
    assert_same(values(net), before)


def test_another_model_names_the_parameter(saved):
    net = make_net()
    net.add(gluon.nn.Dense(3, in_units=3))
    net.initialize(mx.init.Normal(1), force_reinit=True)
    with pytest.raises(ValueError, match=r"has no parameter '12\.weight', and the network has one"):
        checkpoint.load(saved).restore(net)
    net = gluon.nn.Dense(3)
    net.initialize()
    with pytest.raises(ValueError, match="has no parameter 'weight', and the network has one"):
        checkpoint.load(saved).restore(net)
    net = gluon.nn.HybridSequential()
    with pytest.raises(ValueError, match=r"has a parameter '0.weight', and the network has none"):
        checkpoint.load(saved).restore(net)


def test_another_dtype(saved):
    net = make_net()
    net.cast("float64")
    with pytest.raises(ValueError, match=r"'0.weight' is float32 in .* and float64 in the network"):
        checkpoint.load(saved).restore(net)


def test_another_vocabulary(saved):
    loaded, net = checkpoint.load(saved), make_net()
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
        checkpoint.load(saved).restore(net, make_trainer(net, "sgd"))
    assert_same(values(net), before)


def test_a_checkpoint_without_an_optimizer(saved):
    net = make_net()
    with pytest.raises(ValueError, match="has no optimizer state"):
        checkpoint.load(saved, "best").restore(net, make_trainer(net))


def test_a_state_that_lacks_something(tmp_path):
    state = {key: value for key, value in STATE.items() if key not in ("config", "seed")}
    net = make_net()
    with pytest.raises(ValueError, match="must have the keys seed, config"):
        saving.Checkpoints(tmp_path).save(net, make_trainer(net), Position(), state)
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
