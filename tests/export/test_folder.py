"""The folder: whole or not there, checked before it is read, and one line for whatever is wrong with it."""

from __future__ import annotations

import hashlib
import json
import os
from functools import partial

import mxnet as mx
import numpy as np
import pytest
from networks import TOKENS, layers, model

import deeprnn
from deeprnn import export
from deeprnn.export import folder as module
from deeprnn.models.language_model import STACKS

pytest.importorskip("safetensors", reason="pip install .[hub]")


@pytest.fixture
def written(tmp_path):
    about = {"corpus": "ducks.txt", "corpus_sha256": "ab" * 32, "valid_loss": 1.25, "command": "deeprnn train"}
    net = model("lstm", embedding_size=3)
    return export.export(net, tmp_path / "ducks", ["symbol", "torch"], vocabulary=TOKENS, training=about)


def content(folder, name):
    return json.loads((folder / name).read_text(encoding="utf-8"))


def test_the_manifest_names_every_file_with_its_hash(written):
    manifest = content(written, "manifest.json")
    assert set(manifest["files"]) == {path.name for path in written.iterdir()} - {"manifest.json"}
    for name, entry in manifest["files"].items():
        data = (written / name).read_bytes()
        assert entry == {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert manifest["version"] == deeprnn.__version__ and set(manifest["formats"]) == {"symbol", "torch"}
    assert [each["name"] for each in manifest["inputs"]] == ["ids", "h0", "c0"]
    assert manifest["inputs"][0] == {
        "name": "ids",
        "shape": ["sequence_length", "batch_size"],
        "layout": "TN",
        "dtype": "int64",
    }
    assert [each["name"] for each in manifest["outputs"]] == ["logits", "hn", "cn"]
    assert manifest["outputs"][1]["shape"] == [2, "batch_size", 4]


def test_the_files_that_the_hub_knows(written):
    config = content(written, "config.json")
    assert config["architectures"] == ["LanguageModel"] and config["model_type"] == "deeprnn"
    assert config["dtype"] == "float32" and config["unit"] == "char" and config["unk_token"] == "<unk>"
    assert content(written, "vocab.json") == {token: i for i, token in enumerate(TOKENS)}
    card = (written / "README.md").read_text(encoding="utf-8")
    for entry in ("license:", "ducks.txt", "ab" * 32, "1.2500", "deeprnn train", "from_pretrained"):
        assert entry in card


def test_a_layer_alone_has_no_vocabulary(tmp_path):
    folder = export.to_torch(layers("gru", bidirectional=True, use_sequence_length=True), tmp_path / "layer")
    assert not (folder / "vocab.json").exists()
    net, vocabulary = deeprnn.from_pretrained(folder)
    assert vocabulary is None and net.use_sequence_length
    assert [each["name"] for each in content(folder, "manifest.json")["inputs"]] == ["input", "h0", "lengths"]


@pytest.mark.parametrize("formats", [["symbol"], ["onnx"], ["torch"]], ids=lambda formats: formats[0])
def test_sizes(formats, tmp_path):
    if formats == ["onnx"]:
        pytest.importorskip("onnx", reason="pip install .[onnx]")
    net = deeprnn.LanguageModel(100, 128, 2, cell="lstm", embedding_size=64, layer_norm=True)
    net.initialize()
    folder = export.export(net, tmp_path / "model", formats)
    size = 4 * sum(parameter.data().size for parameter in net.collect_params().values())
    files = content(folder, "manifest.json")["formats"][formats[0]]["files"]
    total = sum((folder / name).stat().st_size for name in files)
    assert size <= total <= 1.05 * size + 200_000


def damage(name, change):
    def damaged(folder):
        path = folder / name
        path.write_bytes(change(path.read_bytes()))

    return damaged


def resealed(name, change):
    """Change a file and the manifest with it, as somebody would who writes folders by hand."""

    def damaged(folder):
        damage(name, change)(folder)
        manifest = content(folder, "manifest.json")
        manifest["files"][name]["sha256"] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        (folder / "manifest.json").write_text(json.dumps(manifest))

    return damaged


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda f: (f / "model.safetensors").unlink(), "model.safetensors is missing, and manifest.json names it"),
        (lambda f: (f / "manifest.json").unlink(), "manifest.json is missing: is .*ducks an exported folder?"),
        (
            damage("model.safetensors", lambda b: b[:-1] + bytes([b[-1] ^ 1])),
            "model.safetensors is damaged: its SHA-256 should be",
        ),
        (damage("model-0000.params", lambda b: b + b"?"), "model-0000.params is damaged: its SHA-256 should be"),
        (damage("manifest.json", lambda b: b[:-3]), "manifest.json is not JSON"),
        (damage("manifest.json", lambda b: b"[]"), "manifest.json is not JSON of an exported folder: expected an"),
        (
            damage("manifest.json", lambda b: b.replace(b'"format": 1', b'"format": 2')),
            r"manifest.json has format 2, written by deeprnn [\d.]+; .* reads format 1: install a later one",
        ),
        (
            damage("manifest.json", lambda b: b.replace(b'"vocab.json": {', b'"../vocab.json": {')),
            r"manifest.json is damaged: '../vocab.json' is not the name of a file in the folder",
        ),
        (
            resealed("vocab.json", lambda b: b.replace(b',\n "f": 6', b"")),
            "vocab.json does not fit the network: 6 symbols, and the embedding has 7",
        ),
        (
            resealed("config.json", lambda b: b.replace(b'"hidden_size": 4', b'"hidden_size": 5')),
            r"model.safetensors: stack.weight_ih_l0 must have shape \(20, 3\), got \(16, 3\)",
        ),
        (
            resealed("config.json", lambda b: b.replace(b"LanguageModel", b"Transformer")),
            "config.json describes no network of this package: architectures must be one of .*, got 'Transformer'",
        ),
        (
            resealed("config.json", lambda b: b.replace(b'"tied"', b'"tide"')),
            "config.json describes no network of this package: .*'tide'",
        ),
        (resealed("model.safetensors", lambda b: b[:50]), "model.safetensors is not a safetensors file"),
    ],
)
def test_a_folder_that_is_not_as_it_was(written, change, message):
    change(written)
    with pytest.raises(ValueError, match=message) as refused:
        deeprnn.from_pretrained(written)
    assert "\n" not in str(refused.value)


def manifest_with(**changes):
    def changed(folder):
        manifest = {**content(folder, "manifest.json"), **changes}
        (folder / "manifest.json").write_text(json.dumps(manifest))

    return changed


def config_with(**changes):
    return resealed("config.json", lambda b: json.dumps({**json.loads(b), **changes}).encode())


def config_without(name):
    return resealed("config.json", lambda b: json.dumps({k: v for k, v in json.loads(b).items() if k != name}).encode())


SEALED = {"sha256": "0" * 64, "size": 1}


@pytest.mark.parametrize(
    "change, message",
    [
        (manifest_with(format=0), "is not the manifest of an exported folder"),
        (manifest_with(format=float("nan")), "NaN is not a JSON number"),
        (manifest_with(files={}, formats={}), "is damaged: it does not name (config.json|model.safetensors)"),
        (manifest_with(files=[]), "is damaged: it must have files and formats"),
        (manifest_with(files={"config.json": "?"}), "is damaged: 'config.json' has no SHA-256"),
        (manifest_with(files={"/etc/passwd": SEALED}), "is damaged: '/etc/passwd' is not the name of a file in the"),
        (manifest_with(formats={"onnx": {"files": ["../../x"]}}), "is damaged: the format 'onnx' names a file that is"),
        (manifest_with(formats={"onnx": {}}), "is damaged: the format 'onnx' names no files"),
        (damage("manifest.json", lambda b: b"[" * 100_000), "nested too deeply"),
        (config_with(architectures=[]), "architectures must name one class"),
        (config_with(unit="byte"), "config.json is damaged: unit and unk_token"),
        (config_with(unk_token=3), "config.json is damaged: unit and unk_token"),
        (config_with(num_layers=10**9), r"model.safetensors has \d+ parameters, too few for num_layers=1000000000"),
        (config_with(hidden_size=10**6), r"must have shape \(4000000, 3\)"),
        (config_with(hidden_size=1e400), "config.json is not JSON of an exported folder"),
        (resealed("config.json", lambda b: b.replace(b'"dropout": 0.0', b'"dropout": 1e999')), "1e999 is not a JSON"),
        (config_with(cell=None), "config.json describes no network of this package"),
        (resealed("vocab.json", lambda b: b.replace(b"6", b'"6"')), "vocab.json does not fit the network"),
        (resealed("vocab.json", lambda b: b"[]"), "vocab.json is not JSON of an exported folder"),
    ],
)
def test_a_folder_that_somebody_wrote_by_hand(written, change, message):
    change(written)
    with pytest.raises(ValueError, match=message) as refused:
        deeprnn.from_pretrained(written)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda f: (f / "manifest.json").unlink(),
        lambda f: (f / "vocab.json").unlink(),
        manifest_with(format=0),
        manifest_with(format=2),
        manifest_with(files=[]),
        damage("config.json", lambda b: b + b" "),
        damage("model.safetensors", lambda b: b[:-1] + bytes([b[-1] ^ 1])),
        resealed("model.safetensors", lambda b: b[:50]),
        resealed("vocab.json", lambda b: b.replace(b"6", b'"6"')),
        config_with(architectures=[]),
        config_with(unit="byte"),
        config_with(unit=["char"]),
        config_with(unk_token=3),
        config_without("unk_token"),
        config_with(unk_token=["<unk>"]),
        config_with(unk_token="<none>"),
        config_with(cell=None),
        config_with(num_layers=10**9),
        config_with(hidden_size=10**6),
        config_with(hidden_size=1e400),
    ],
)
def test_a_folder_that_one_reader_refuses_the_other_refuses(written, change):
    pytest.importorskip("torch", reason="pip install .[torch]")
    deeprnn_torch = pytest.importorskip("deeprnn_torch", reason="pip install ./src/deeprnn_torch")
    deeprnn_torch.LanguageModel.from_pretrained(written)
    change(written)
    for read in (deeprnn.from_pretrained, deeprnn_torch.LanguageModel.from_pretrained):
        with pytest.raises(ValueError, match=r"ducks|vocabulary") as refused:
            read(written)
        assert "\n" not in str(refused.value)


def test_a_folder_of_links_as_in_the_cache_of_the_hub(written, tmp_path):
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for path in written.iterdir():
        (snapshot / path.name).symlink_to(path)
    assert deeprnn.from_pretrained(snapshot)[1].idx_to_token == TOKENS
    (snapshot / "manifest.json").unlink()
    os.mkfifo(snapshot / "manifest.json")
    with pytest.raises(ValueError, match=r"manifest\.json is not a file"):
        deeprnn.from_pretrained(snapshot)


def test_a_folder_that_exists_is_left_alone(written, tmp_path):
    before = sorted(written.iterdir())
    with pytest.raises(ValueError, match=r"out .*ducks exists already: choose another folder"):
        export.to_torch(model(), written)
    assert sorted(written.iterdir()) == before and list(tmp_path.iterdir()) == [written]


def test_an_export_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_manifest", full)
    with pytest.raises(OSError):
        export.to_torch(model(), tmp_path / "model")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "net, options, message",
    [
        (lambda: object(), {}, "net must be a LanguageModel, DeepRNN, DeepGRU or DeepLSTM, got object"),
        (lambda: deeprnn.DeepRNN(4), {}, "net does not know its input_size yet"),
        (lambda: deeprnn.DeepRNN(4, input_size=3), {}, "net has no parameters yet: initialize it"),
        (model, {"vocabulary": TOKENS[:-1]}, "vocabulary has 6 symbols, and the network 7"),
        (model, {"vocabulary": [*TOKENS[:-1], "a"]}, "vocabulary: 7 tokens, but only 6 distinct ones"),
        (model, {"vocabulary": TOKENS, "unit": "chars"}, "unit must be one of 'char', 'word', got 'chars'"),
        (model, {"formats": ["tflite"]}, "formats must be one of 'symbol', 'onnx', 'torch', got 'tflite'"),
    ],
)
def test_what_cannot_be_exported(net, options, message, tmp_path):
    with pytest.raises((ValueError, TypeError), match=message):
        export.export(net(), tmp_path / "model", **options)
    assert not list(tmp_path.iterdir())


class Leaky(deeprnn.RecurrentCell):
    def step(self, F, projected, states, params):
        return [projected + self.dense(F, states[0], "h2h", params)]


class Other(deeprnn.DeepRNN):
    pass


@pytest.mark.parametrize(
    "make, stack, cell",
    [
        (lambda: deeprnn.RecurrentStack(partial(Leaky, 4), input_size=3), "RecurrentStack", "Leaky"),
        (lambda: deeprnn.RecurrentStack(partial(deeprnn.ElmanCell, 4), input_size=3), "RecurrentStack", "ElmanCell"),
        (lambda: Other(4, input_size=3), "Other", "ElmanCell"),
    ],
)
def test_layers_of_ones_own_are_refused_by_name(make, stack, cell, tmp_path):
    net = make()
    net.initialize()
    with pytest.raises(ValueError, match=f"^layers of the class {stack} with the cell {cell} cannot be exported to a"):
        export.to_onnx(net, tmp_path / "model")


class OtherModel(deeprnn.LanguageModel):
    """Computes something else, as a subclass may."""

    def hybrid_forward(self, F, ids, states):
        logits, states = super().hybrid_forward(F, ids, states)
        return logits * 2, states


def test_a_language_model_of_ones_own_is_refused(tmp_path):
    net = OtherModel(5, 4)
    net.initialize()
    with pytest.raises(TypeError, match=r"^net must be a LanguageModel, .* got OtherModel$"):
        export.to_torch(net, tmp_path / "model", vocabulary=["<unk>", *"abcd"])


class Through(mx.gluon.HybridBlock):
    """Layers as a plugin may have them, without a cell."""

    def hybrid_forward(self, F, x, states):
        return x, states


def test_layers_without_a_cell_are_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setitem(STACKS["deeprnn"], "through", lambda *sizes, **options: Through())
    net = deeprnn.LanguageModel(5, 4, cell="through", embedding_size=4)
    net.initialize()
    with pytest.raises(ValueError, match=r"^layers of the class Through cannot be exported to a folder"):
        export.to_torch(net, tmp_path / "model", vocabulary=["<unk>", *"abcd"])


@pytest.mark.parametrize("package, name", [("safetensors", "hub"), ("onnx", "onnx")])
def test_a_package_that_is_missing_is_named_with_what_to_install(package, name, tmp_path, monkeypatch):
    def missing(module):
        if module.startswith(package):
            raise ModuleNotFoundError(f"No module named {module!r}")
        return original(module)

    from deeprnn._util import extras

    original = extras.import_module
    monkeypatch.setattr(extras, "import_module", missing)
    with pytest.raises(ValueError, match=rf"{package} is not installed: pip install 'deeprnn\[{name}\]'"):
        export.to_onnx(model(), tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_arrays_that_are_not_contiguous_are_written_as_they_are(tmp_path):
    """safetensors writes the memory of an array, whatever its strides."""
    from deeprnn.export.torch import parameters_of, read_safetensors

    net = model("lstm", embedding_size=3)
    folder = export.to_torch(net, tmp_path / "model")
    arrays = read_safetensors(folder / "model.safetensors")
    for name, array in parameters_of(net).items():
        assert array.flags.c_contiguous and np.array_equal(arrays[name], array)


def test_what_pytorch_has_not_is_refused_before_anything_is_written(tmp_path):
    wide = layers("lstm", projection_size=4)
    with pytest.raises(ValueError, match="no projection_size=4 with hidden_size=4"):
        export.export(wide, tmp_path / "wide")
    assert not (tmp_path / "wide").exists()
    export.export(wide, tmp_path / "wide", ["onnx", "symbol"])
    with pytest.raises(ValueError, match="state_clip_min and state_clip_max must be finite"):
        export.export(layers("lstm", state_clip_min=-np.inf, state_clip_max=1.0), tmp_path / "clip")


def changed(options):
    """Change the configuration, as somebody would who writes folders by hand."""
    return resealed("config.json", lambda data: json.dumps({**json.loads(data), **options}).encode())


@pytest.mark.parametrize(
    "change",
    [{"params": 5}, {"backend": "gluon"}, {"prefix": "x"}, {"residual": "x"}, {"residual": [1]}, {"activation": 7.0}],
)
def test_a_configuration_that_no_export_writes_is_refused(change, tmp_path):
    export.export(model("gru"), tmp_path / "out", ["torch"])
    changed(change)(tmp_path / "out")
    with pytest.raises(ValueError, match=r"config\.json describes no network of this package"):
        deeprnn.from_pretrained(tmp_path / "out")


def test_a_size_that_is_no_whole_number_is_refused(tmp_path):
    export.export(model(), tmp_path / "out", ["torch"], vocabulary=TOKENS)
    changed({"vocab_size": 7.0})(tmp_path / "out")
    with pytest.raises(ValueError, match=r"config\.json|vocab\.json"):
        deeprnn.from_pretrained(tmp_path / "out")


def test_a_name_that_no_file_has_is_refused(tmp_path):
    export.export(model(), tmp_path / "out", ["torch"])
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    manifest["files"]["a" * 300] = {"sha256": ""}
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="is not the name of a file in the folder"):
        deeprnn.from_pretrained(tmp_path / "out")
