"""Text from an exported ONNX file, with onnxruntime and numpy alone: python generate_onnx.py model.onnx LENGTH SEED"""

import json
import sys

import numpy as np
import onnxruntime

path, length, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
metadata = {key: json.loads(session.get_modelmeta().custom_metadata_map[key]) for key in ("vocab", "unit", "unk_token")}
separator = {"char": "", "word": " "}[metadata["unit"]]
unknown = metadata["vocab"].index(metadata["unk_token"]) if metadata["unk_token"] else None

states = {}
for state in session.get_inputs()[1:]:  # h0, and for an LSTM c0
    layers, _, units = state.shape
    states[state.name] = np.zeros((layers, 1, units), np.float32)
rng = np.random.default_rng(seed)
symbol, text = 0 if unknown is None else 1, []  # the most frequent one, after which most can follow
for _ in range(length):
    logits, *last = session.run(None, {"ids": np.array([[symbol]]), **states})
    states = dict(zip(states, last))
    scores = np.round(logits[0, 0].astype(np.float64), 4)
    if unknown is not None:
        scores[unknown] = -np.inf
    shares = np.cumsum(np.exp(scores - scores.max()))
    symbol = int((shares <= rng.random() * shares[-1]).sum())
    text.append(metadata["vocab"][symbol])
print(separator.join(text))
