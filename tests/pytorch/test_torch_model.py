"""The language model of `deeprnn_torch`: its folder, its recorded calls, its steps of generation."""

from __future__ import annotations

import hashlib
import json

import pytest

torch = pytest.importorskip("torch", reason="pip install .[torch]")
files = pytest.importorskip("safetensors.torch", reason="pip install .[torch]")
deeprnn_torch = pytest.importorskip("deeprnn_torch", reason="pip install ./src/deeprnn_torch")

TOKENS = ["<unk>", *"abcdef"]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]
every_cell = pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
every_device = pytest.mark.parametrize("device", DEVICES)
SIZES = {
    "one-hot": {},
    "embedding": {"embedding_size": 3, "residual": True},
    "tied": {"embedding_size": 4, "tied": True, "layer_norm": True},
}


def model(cell="lstm", seed=0, **options):
    torch.manual_seed(seed)
    net = deeprnn_torch.LanguageModel(7, 4, 2, cell=cell, **options)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(0, 0.5)
    return net


def written(folder, net, **config):
    """A folder such as `deeprnn export` writes."""
    folder.mkdir()
    about = {
        **{"model_type": "deeprnn", "architectures": ["LanguageModel"], "dtype": "float32", "vocab_size": 7},
        **{"hidden_size": 4, "num_layers": 2, "cell": "lstm", "unit": "char", "unk_token": "<unk>", **config},
    }
    (folder / "config.json").write_text(json.dumps(about))
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(TOKENS)}))
    files.save_file(net.state_dict(), folder / "model.safetensors")
    seal(folder)
    return folder


def seal(folder):
    entries = {p.name: {"sha256": hashlib.sha256(p.read_bytes()).hexdigest()} for p in folder.iterdir()}
    (folder / "manifest.json").write_text(json.dumps({"format": 1, "files": entries}))


@every_cell
@pytest.mark.parametrize("options", SIZES.values(), ids=SIZES)
def test_a_folder_becomes_the_model(cell, options, tmp_path):
    net = model(cell, **options)
    back = deeprnn_torch.LanguageModel.from_pretrained(written(tmp_path / "model", net, cell=cell, **options))
    assert (back.vocabulary, back.unit, back.unknown) == (TOKENS, "char", "<unk>")
    ids = torch.randint(7, (5, 2))
    expected, states = net(ids)
    found, last = back(ids)
    assert found.equal(expected) and all(a.equal(b) for a, b in zip(last, states)) and found.shape == (5, 2, 7)
    first, middle = back(ids[:2])
    assert torch.allclose(torch.cat([first, back(ids[2:], middle)[0]]), expected, atol=1e-6)


@every_device
@every_cell
@pytest.mark.parametrize("options", SIZES.values(), ids=SIZES)
def test_a_captured_call_is_the_call(cell, options, device):
    net = model(cell, **options).to(device).eval()
    call = net.capture(5, 2)
    states = [torch.randn_like(state) for state in net.begin_state(2)]
    kept = []
    for begin in (None, states, None):
        ids = torch.randint(7, (5, 2), device=device)
        (found, last), (expected, end) = call(ids, begin), net(ids, begin)
        assert torch.allclose(found, expected, atol=1e-5)
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(last, end))
        kept.append((found, expected))
    assert all(torch.allclose(*pair, atol=1e-5) for pair in kept)  # no call has written over another's results
    with torch.no_grad():
        net.decoder.bias.add_(1)  # as an optimizer does
    ids = torch.randint(7, (5, 2), device=device)
    assert torch.allclose(call(ids)[0], net(ids)[0], atol=1e-5)
    with pytest.raises(ValueError, match=r"ids must have shape \(5, 2\), as captured, got \(4, 2\)"):
        call(ids[:4])


@every_device
@every_cell
def test_a_captured_step_draws_from_the_softmax(cell, device):
    net, texts = model(cell, embedding_size=3).to(device).eval(), 4000
    step = net.capture_step(texts, banned=[0])
    torch.manual_seed(1)
    step.begin(torch.full((texts,), 3, device=device))
    logits, states = net(torch.tensor([[3]], device=device))
    logits[..., 0] = -torch.inf
    drawn = step(temperature=0.7)
    shares = torch.softmax(logits[0, 0] / 0.7, -1).double().cpu()
    counts = torch.bincount(drawn.cpu(), minlength=7)
    assert counts[0] == 0
    assert (((counts - texts * shares) ** 2 / (texts * shares))[1:]).sum() < 20.5  # 99.9 % at five degrees of freedom
    # The state goes on with the symbol that was drawn.
    again = step(temperature=1e-4)
    expected = net(drawn[None], [state.expand(-1, texts, -1).contiguous() for state in states])[0][0]
    expected[:, 0] = -torch.inf
    assert (again == expected.argmax(-1)).double().mean() > 0.99


@every_device
def test_a_seed_gives_the_same_texts(device):
    net = model().to(device)
    texts = []
    for seed in (1, 1, 2):
        step = net.capture_step(3)
        torch.manual_seed(seed)
        step.begin(torch.zeros(3, dtype=torch.long, device=device))
        texts.append(torch.stack([step() for _ in range(30)]))
    assert texts[0].equal(texts[1]) and not texts[0].equal(texts[2])
    with pytest.raises(ValueError, match="temperature must be above 0, got 0"):
        step(temperature=0)
    with pytest.raises(ValueError, match=r"ids must have shape \(3,\), as captured, got \(2,\)"):
        step.begin(torch.zeros(2, dtype=torch.long, device=device))


def test_it_learns():
    net, ids = model(embedding_size=3), torch.arange(15).reshape(-1, 1) % 7
    optimizer = torch.optim.Adam(net.parameters(), 0.03)
    for _ in range(80):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(ids[:-1])[0].flatten(0, 1), ids[1:].flatten())
        loss.backward()
        optimizer.step()
    assert loss < 0.2


def changed(name, change):
    def change_it(folder):
        (folder / name).write_bytes(change((folder / name).read_bytes()))

    return change_it


def sealed(name, change):
    def change_it(folder):
        changed(name, change)(folder)
        (folder / "manifest.json").unlink()
        seal(folder)

    return change_it


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda f: (f / "manifest.json").unlink(), "manifest.json is missing: is .*model a whole exported folder?"),
        (lambda f: (f / "vocab.json").unlink(), "vocab.json is missing"),
        (changed("model.safetensors", lambda b: b[:-1] + bytes([b[-1] ^ 1])), "model.safetensors is damaged"),
        (changed("config.json", lambda b: b + b" "), "config.json is damaged"),
        (changed("manifest.json", lambda b: b.replace(b'"format": 1', b'"format": 9')), "has format 9"),
        (changed("manifest.json", lambda b: b[:9]), "manifest.json is not JSON"),
        (sealed("config.json", lambda b: b.replace(b"LanguageModel", b"DeepLSTM")), r"holds \['DeepLSTM'\], not"),
        (sealed("vocab.json", lambda b: b.replace(b', "f": 6', b"")), "does not fit the network: 6 symbols for 7 ids"),
        (
            sealed("config.json", lambda b: b.replace(b'"num_layers": 2', b'"num_layers": 3')),
            "model.safetensors lacks stack.bias_hh_l2, ",
        ),
        (
            sealed("config.json", lambda b: b.replace(b'"hidden_size": 4', b'"hidden_size": 5')),
            r"stack.weight_ih_l0 must have shape \(20, 7\), got \(16, 7\)",
        ),
        (sealed("model.safetensors", lambda b: b[:40]), "is not a safetensors file"),
        (changed("manifest.json", lambda b: b"[" * 100_000), "manifest.json is not JSON of an exported folder"),
        (changed("manifest.json", lambda b: b.replace(b'"format": 1', b'"format": NaN')), "NaN is not a JSON number"),
        (changed("manifest.json", lambda b: b'{"format": 1}'), "is not the manifest of an exported folder"),
        (changed("manifest.json", lambda b: b'{"format": 1, "files": {"config.json": 3}}'), "config.json is damaged"),
        (sealed("vocab.json", lambda b: b.replace(b'"f": 6', b'"f": "g"')), "vocab.json does not fit the network"),
        (
            sealed("config.json", lambda b: b.replace(b'"num_layers": 2', b'"num_layers": 1000000000')),
            "too few for num_layers=1000000000",
        ),
        (
            sealed("config.json", lambda b: b.replace(b'"hidden_size": 4', b'"hidden_size": 1000000')),
            r"must have shape \(4000000, 7\)",  # and not a try to fill it
        ),
        (
            sealed("config.json", lambda b: b.replace(b'"hidden_size": 4', b'"hidden_size": "4"')),
            "config.json describes no network of this package",
        ),
        (
            sealed("config.json", lambda b: b.replace(b'"char"', b'"byte"')),
            "config.json is damaged: unit and unk_token do not describe a vocabulary",
        ),
    ],
)
def test_a_folder_that_is_not_as_it_was(change, message, tmp_path):
    folder = written(tmp_path / "model", model())
    change(folder)
    with pytest.raises(ValueError, match=message) as refused:
        deeprnn_torch.LanguageModel.from_pretrained(folder)
    assert "\n" not in str(refused.value)


def test_a_folder_that_the_caller_has_checked_is_not_checked_again(tmp_path):
    folder = written(tmp_path / "model", model())
    changed("config.json", lambda b: b + b" ")(folder)
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        deeprnn_torch.LanguageModel.from_pretrained(folder)
    ids = torch.zeros((3, 2), dtype=torch.long)
    net = deeprnn_torch.LanguageModel.from_pretrained(folder, verify=False)
    found, expected = (each.eval()(ids)[0] for each in (net, model()))
    assert found.equal(expected)


def test_it_needs_neither_mxnet_nor_numpy():
    """In a process that cannot import either."""
    import subprocess
    import sys
    from pathlib import Path

    code = (
        "import sys, warnings; warnings.simplefilter('ignore')\n"
        "for name in ('mxnet', 'deeprnn', 'numpy'): sys.modules[name] = None\n"
        "import deeprnn_torch, torch\n"
        "net = deeprnn_torch.LanguageModel(7, 4, 2, residual=True)\n"
        "assert net(torch.zeros((3, 2), dtype=torch.long))[0].shape == (3, 2, 7)\n"
    )
    source = str(Path(deeprnn_torch.__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": source}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_captured_call_is_inference_whatever_the_network_does_meanwhile():
    net = deeprnn_torch.LanguageModel(11, 8, 2, cell="gru", embedding_size=5, dropout=0.5)
    call, step = net.capture(4, 3), net.capture_step(3)
    ids = torch.randint(11, (4, 3))
    expected = net.eval()(ids)[0]
    net.train()
    assert torch.equal(call(ids)[0], expected) and torch.equal(call(ids)[0], expected)
    step.begin(ids[0])
    step()
    assert net.training
