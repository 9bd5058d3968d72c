"""The language model: embedding, recurrent layers, decoder."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any, Optional, Union

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .capture import Call, Step
from .folder import read_folder
from .layers import DeepGRU, DeepLSTM, DeepRNN

__all__ = ["LanguageModel"]

LAYERS: dict[str, Any] = {"rnn": DeepRNN, "gru": DeepGRU, "lstm": DeepLSTM}


class LanguageModel(nn.Module):
    """A recurrent language model, as `deeprnn.LanguageModel`.

    ``ids (T, N) -> embedding (T, N, E) -> recurrent layers (T, N, H) -> decoder (T, N, V)``

    Parameters
    ----------
    vocab_size, hidden_size, num_layers : int
        Symbols V, units H of each layer, layers.
    cell : {'rnn', 'gru', 'lstm'}, keyword-only
    activation : {'tanh', 'relu'}, keyword-only
        For ``cell='rnn'``.
    embedding_size : int, keyword-only
        Size E of the embedding; 0: one-hot vectors.
    dropout, residual, layer_norm, zoneout : keyword-only
        As for `DeepRNN`.
    tied : bool, keyword-only
        Embedding and decoder share one weight; E must equal H.
    dtype : torch.dtype, keyword-only

    Attributes
    ----------
    vocabulary : list of str, optional
        The symbols by their ids, of a model that was read from a folder.
    unit, unknown : str, optional
        Whether a symbol is a 'char' or a 'word', and the symbol that replaces unknown ones.

    Examples
    --------
    >>> net = LanguageModel.from_pretrained("model").eval()
    >>> ids = torch.tensor([[net.vocabulary.index("T")]])
    >>> logits, states = net(ids)
    >>> logits, states = net(logits[-1:].argmax(-1), states)
    """

    def __init__(
        self,
        vocab_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        cell: str = "rnn",
        activation: str = "tanh",
        embedding_size: int = 0,
        dropout: float = 0.0,
        residual: bool = False,
        layer_norm: bool = False,
        zoneout: float = 0.0,
        tied: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        if cell not in LAYERS:
            raise ValueError(f"cell must be one of {', '.join(map(repr, LAYERS))}, got {cell!r}")
        if tied and embedding_size != hidden_size:
            raise ValueError(f"tied needs embedding_size equal to hidden_size, got {embedding_size} and {hidden_size}")
        self.vocab_size, self.embedding_size, self.tied = vocab_size, embedding_size, tied
        self.vocabulary: Optional[list[str]] = None
        self.unit: Optional[str] = None
        self.unknown: Optional[str] = None
        self.stack = LAYERS[cell](
            embedding_size or vocab_size,
            hidden_size,
            num_layers,
            dropout=dropout if num_layers > 1 else 0.0,  # torch warns of it in one layer, which has nothing to drop
            residual=residual,
            layer_norm=layer_norm,
            zoneout=zoneout,
            dtype=dtype,
            **({"nonlinearity": activation} if cell == "rnn" else {}),
        )
        self.decoder = nn.Linear(hidden_size, vocab_size, dtype=dtype)
        if embedding_size and not tied:
            self.embedding = nn.Embedding(vocab_size, embedding_size, dtype=dtype)

    def begin_state(self, batch_size: int) -> list[Tensor]:
        """States of zeros: ``[h]``, or ``[h, c]`` for an LSTM, ``(num_layers, batch_size, hidden_size)`` each."""
        weight = self.decoder.weight
        return [weight.new_zeros(self.stack.num_layers, batch_size, size) for size in self.stack.state_sizes()]

    def forward(self, ids: Tensor, states: Optional[Sequence[Tensor]] = None) -> tuple[Tensor, list[Tensor]]:
        """Logits ``(T, N, V)`` and the last states, from ids ``(T, N)`` and states, by default zeros."""
        if self.tied:
            x = F.embedding(ids, self.decoder.weight) * self.embedding_size**0.5
        elif self.embedding_size:
            x = self.embedding(ids)
        else:
            x = F.one_hot(ids, self.vocab_size).to(self.decoder.weight.dtype)
        begin = self.begin_state(ids.shape[1]) if states is None else list(states)
        y, last = self.stack(x, tuple(begin) if len(begin) > 1 else begin[0])
        return self.decoder(y), list(last) if isinstance(last, tuple) else [last]

    @classmethod
    def from_pretrained(cls, path: Union[str, PathLike[str]], *, verify: bool = True) -> LanguageModel:
        """The model of a folder that `deeprnn export` wrote.

        Parameters
        ----------
        path
            The folder.
        verify
            Compare each file with its SHA-256 in the manifest; False if the caller has done that.

        Raises
        ------
        ValueError
            If the folder is damaged, of a later format, or holds another class; the message names the file.
        """
        folder = read_folder(path, "LanguageModel", verify)
        net = folder.network(cls, **folder.config)
        net.vocabulary, net.unit, net.unknown = folder.vocabulary, folder.unit, folder.unknown
        return net

    def capture(self, sequence_length: int, batch_size: int) -> Call:
        """The call for inputs of one shape, on a GPU recorded as a CUDA graph; see `Call`."""
        return Call(self, sequence_length, batch_size)

    def capture_step(self, batch_size: int, banned: Sequence[int] = ()) -> Step:
        """A step of generation for `batch_size` texts, on a GPU recorded as a CUDA graph; see `Step`."""
        return Step(self, batch_size, banned)
