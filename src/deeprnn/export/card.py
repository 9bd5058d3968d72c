"""The card of an exported folder: its README.md, as the Hugging Face hub expects it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .architecture import Config, is_language_model, kind_of
from .torch import Parameters

__all__ = ["card"]

LOADING = {
    "symbol": 'gluon.SymbolBlock.imports("model-symbol.json", {inputs}, "model-0000.params")    # mxnet alone',
    "onnx": 'onnxruntime.InferenceSession("model.onnx")                                  # onnxruntime alone',
    "torch": 'deeprnn_torch.{name}.from_pretrained("{folder}")                       # torch and safetensors alone',
}


def card(
    config: Config, folder: str, parameters: Parameters, formats: Mapping[str, Any], training: Mapping[str, Any]
) -> str:
    """The text of the card.

    Parameters
    ----------
    training
        Any of ``command``, ``corpus``, ``corpus_sha256``, and figures such as ``valid_loss``, in nats per symbol.
    """
    (name,) = config["architectures"]
    count = sum(array.size for array in parameters.values())
    inputs = ["ids" if is_language_model(config) else "input", "h0", *(["c0"] if kind_of(config) == "lstm" else [])]
    loading = [LOADING[each].format(name=name, folder=folder, inputs=inputs) for each in formats]
    rows = [f"- {key.replace('_', ' ')}: {value}" for key, value in config.items() if value not in (None, False, 0)]
    lines = [
        "---",
        "# Fill in the licence under which you share this model.",
        "license:",
        "library_name: deeprnn",
        *(["pipeline_tag: text-generation"] if is_language_model(config) else []),
        "---",
        "",
        f"# {folder}",
        "",
        f"A `{name}` of deeprnn with {count:,} parameters in {config['dtype']}.",
        "",
        *rows[2:],
        "",
        "## Training",
        "",
        *([f"- {key.replace('_', ' ')}: {_shown(value)}" for key, value in _recorded(training)] or ["Not recorded."]),
        "",
        "## Loading",
        "",
        "```python",
        f'net, vocabulary = deeprnn.from_pretrained("{folder}")',
        *loading,
        "```",
        "",
        "`manifest.json` has the SHA-256 of every file, and names, shapes and layouts of inputs and outputs.",
    ]
    return "\n".join(lines) + "\n"


def _recorded(training: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(key, value) for key, value in training.items() if value is not None and not isinstance(value, Mapping)]


def _shown(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else f"`{value}`"
