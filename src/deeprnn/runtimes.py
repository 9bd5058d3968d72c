"""Language models by the native kernels, MXNet, onnxruntime or PyTorch, behind one interface of NumPy arrays.

A `Model` is called with ids ``(T, N)`` and states, and returns logits ``(T, N, V)`` and the next states. States are
objects of the runtime, which callers pass on unseen. `generation` and `evaluation` use nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional, Protocol

import numpy as np

from ._util.extras import extra

__all__ = ["MXNetModel", "Model", "ONNXModel", "TorchModel", "model_of"]

States = Any

CALLS_KEPT = 64
"""Shapes of ids for which `MXNetModel` keeps what it has looked up."""


class Model(Protocol):
    """A language model in some runtime."""

    def begin(self, batch_size: int) -> States:
        """States of zeros for `batch_size` sequences."""

    def __call__(self, ids: np.ndarray, states: States) -> tuple[np.ndarray, States]:
        """Logits ``(T, N, V)`` and the next states, from ids ``(T, N)``, integers, and states."""

    def arrays(self, states: States) -> list[np.ndarray]:
        """The states as arrays ``(layers, N, units)``."""

    def states(self, arrays: Sequence[np.ndarray]) -> States:
        """States from arrays: the inverse of `arrays`."""


class MXNetModel:
    """A gluon network: called with ids and states it returns logits and states, and it has a `begin_state`.

    Parameters
    ----------
    net
        The network; hybridize it for speed.
    ctx : mx.Context, optional
        Its device; by default MXNet's current context.

    The parameters' values are read at each call. Where the network is initialized anew, make another one.
    """

    def __init__(self, net: Any, ctx: Any = None) -> None:
        import mxnet as mx

        self._net, self._mx, self._ctx = net, mx, ctx or mx.current_context()
        self._calls: dict[tuple[int, ...], tuple[Any, Any]] = {}

    def begin(self, batch_size: int) -> States:
        return self._net.begin_state(batch_size, ctx=self._ctx)

    def __call__(self, ids: np.ndarray, states: States) -> tuple[np.ndarray, States]:
        given, call = self._calls.get(ids.shape) or self._new_call(ids.shape, states)
        given._sync_copyfrom(ids.astype(np.int32))
        logits, states = call(given, states)
        return logits.asnumpy(), states

    def _new_call(self, shape: tuple[int, ...], states: States) -> tuple[Any, Any]:
        """An array for ids of this shape, and what it is called with: to make them takes as long as a small step."""
        ids = self._mx.nd.zeros(shape, self._ctx, dtype="int32")
        call = self._net.bound(ids, states) if hasattr(self._net, "bound") else self._net
        if len(self._calls) >= CALLS_KEPT:
            self._calls.clear()
        self._calls[shape] = ids, call
        return ids, call

    def arrays(self, states: States) -> list[np.ndarray]:
        return [state.asnumpy() for state in states]

    def states(self, arrays: Sequence[np.ndarray]) -> States:
        return [self._mx.nd.array(array, self._ctx, dtype=array.dtype) for array in arrays]


def model_of(net: Any, ctx: Any = None, runtime: Optional[str] = None) -> Model:
    """A gluon network to generate and score with: by the native kernels where they serve it, else by MXNet.

    Parameters
    ----------
    net, ctx
        As for `MXNetModel`. The native kernels run a `deeprnn.LanguageModel`, with the weights that it has now.
    runtime : {'native', 'mxnet'}, optional
        The one that it has to be.

    Raises
    ------
    ValueError
        For ``runtime='native'``, if the kernels do not serve.
    """
    if runtime != "mxnet" and hasattr(net, "packed"):
        try:
            return net.packed(ctx)
        except ValueError as error:
            if runtime == "native":
                raise ValueError(f"runtime='native' cannot run this model: {error}") from error
    return MXNetModel(net, ctx)


class ONNXModel:
    """An exported ONNX file in onnxruntime.

    Parameters
    ----------
    path
        The file.
    threads
        Threads to compute with; onnxruntime does not read OMP_NUM_THREADS.

    Raises
    ------
    ValueError
        If onnxruntime is not installed or cannot load the file, or if the file is not an exported language model.
    """

    def __init__(self, path: Path, threads: Optional[int] = None) -> None:
        onnxruntime = extra("onnxruntime", "onnx")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has many, none of which is public
            raise ValueError(f"{path} is not an ONNX file that onnxruntime can load: {error}") from error
        self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        ids, *states = self._session.get_inputs()
        if "deeprnn" not in self.metadata or "vocab" not in self.metadata or ids.name != "ids":
            raise ValueError(f"{path} is not a language model that deeprnn exported with its vocabulary")
        types = {"tensor(float)": "float32", "tensor(double)": "float64"}
        if not all(state.type in types and len(state.shape) == 3 for state in states):
            raise ValueError(f"{path} has states that no model of deeprnn has")
        self.vocab_size = self._session.get_outputs()[0].shape[-1]
        self._dtypes = [types[state.type] for state in states]
        self._shapes = [(state.shape[0], state.shape[2]) for state in states]
        self._names = [state.name for state in states]

    def begin(self, batch_size: int) -> States:
        return [np.zeros((rows, batch_size, units), t) for (rows, units), t in zip(self._shapes, self._dtypes)]

    def __call__(self, ids: np.ndarray, states: States) -> tuple[np.ndarray, States]:
        given = {"ids": ids.astype(np.int64, copy=False), **dict(zip(self._names, states))}
        logits, *states = self._session.run(None, given)
        return logits, states

    def arrays(self, states: States) -> list[np.ndarray]:
        return list(states)

    def states(self, arrays: Sequence[np.ndarray]) -> States:
        return list(map(np.ascontiguousarray, arrays))


class TorchModel:
    """A `deeprnn_torch.LanguageModel`, read from an exported folder.

    Parameters
    ----------
    path
        The folder, whose files have been checked by `export.manifest.read_folder`.
    threads
        Threads to compute with, in all of PyTorch.

    Raises
    ------
    ValueError
        If torch or deeprnn-torch is not installed.
    """

    def __init__(self, path: Path, threads: Optional[int] = None) -> None:
        try:
            import torch

            import deeprnn_torch
        except ModuleNotFoundError as error:
            package = (error.name or "").replace("_", "-")
            how = "'deeprnn[torch]'" if package == "torch" else "./src/deeprnn_torch, in a checkout"
            raise ValueError(f"{package} is not installed: pip install {how}") from error
        if threads:
            torch.set_num_threads(threads)
        self._torch = torch
        self._net = deeprnn_torch.LanguageModel.from_pretrained(path, verify=False).eval()

    def begin(self, batch_size: int) -> States:
        return self._net.begin_state(batch_size)

    def __call__(self, ids: np.ndarray, states: States) -> tuple[np.ndarray, States]:
        with self._torch.inference_mode():
            logits, states = self._net(self._torch.from_numpy(ids.astype(np.int64, copy=False)), states)
        return logits.numpy(), states

    def arrays(self, states: States) -> list[np.ndarray]:
        return [state.numpy() for state in states]

    def states(self, arrays: Sequence[np.ndarray]) -> States:
        return [self._torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]
