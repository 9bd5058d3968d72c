"""Options of a training run: text, model, training."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Optional

from .._util.checks import check_activation, check_choice, check_devices, check_encoding, check_fraction
from .fields import check_fields, select

__all__ = ["CELLS", "DataConfig", "ModelConfig", "RunConfig", "Split", "TrainConfig"]

CELLS = ("rnn", "gru", "lstm")
"""The built-in cells. Listed here as well as in `models.language_model`, so that a configuration can be checked before
MXNet is loaded."""

MOST_THREADS = 1024
"""With many more, MXNet ends the process."""


def check_cell(cell: str) -> None:
    """Raise ValueError unless `cell` is built in; only a plugin registers others."""
    try:
        check_choice("cell", cell, CELLS)
    except ValueError as error:
        raise ValueError(f"{error} (a cell of your own needs plugin=FILE)") from None


class Split(NamedTuple):
    """Shares of a text for training, validation and test."""

    train: float
    valid: float
    test: float

    @classmethod
    def parse(cls, shares: Any) -> Split:
        """Make a split from ``"0.8,0.1,0.1"`` or three numbers.

        Raises
        ------
        ValueError
            Unless there are three shares of at least 0 with sum 1, the first of them above 0.
        """
        try:
            split = cls(*map(float, shares.split(",") if isinstance(shares, str) else shares))
        except (TypeError, ValueError):
            split = cls(0, 0, 0)
        if not (min(split) >= 0 and math.isclose(sum(split), 1, abs_tol=1e-6)):
            raise ValueError(f"split must be three shares of at least 0 with sum 1, as 0.8,0.1,0.1; got {shares}")
        if not split.train:
            raise ValueError(f"split={split} leaves nothing to train on")
        return split

    def __str__(self) -> str:
        return ",".join(f"{share:g}" for share in self)


@dataclass(frozen=True)
class DataConfig:
    """Text and batches.

    Parameters
    ----------
    corpus
        Name of a text (pydoc, timemachine, tinyshakespeare, jaychou), or path of a .txt, .gz or .zip file; several are
        read as one text: separated by commas, or a quoted pattern such as 'books/*.txt'.
    encoding
        Encoding of the file, such as utf-8, gb18030 or utf-16.
    max_chars
        Number of characters to use, from the beginning of the text (default: all).
    split
        Shares of the text for training, validation and test, in this order; a share may be 0.
    unit
        What a symbol is: a character or a word.
    unknown
        Add an unknown token to the vocabulary, which replaces every symbol that the training part lacks.
    batch_size
        Sequences in a batch.
    seq_len
        Time steps in a batch, in symbols; gradients are truncated at this length.
    sampling
        How batches are cut. consecutive: a batch continues the one before, and the state is carried over; random:
        windows in random order, each from a state of zeros.
    check_cache
        Compare the hashes of a large text and of its encoded form, which is kept in the cache, instead of the sizes and
        times of the files.
    """

    corpus: str = "pydoc"
    encoding: str = "utf-8"
    max_chars: Optional[int] = None
    split: Split = field(default=Split(0.8, 0.1, 0.1))
    unit: Literal["char", "word"] = "char"
    unknown: bool = True
    batch_size: int = 32
    seq_len: int = 35
    sampling: Literal["consecutive", "random"] = "consecutive"
    check_cache: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "split", Split.parse(self.split))
        check_fields(self, max_chars=1, batch_size=1, seq_len=1)
        if not self.corpus:
            raise ValueError("corpus is empty: give the name of a text or the path of a file")
        check_encoding("encoding", self.encoding)

    @property
    def text_options(self) -> dict[str, Any]:
        """The arguments of `data.text.load_corpus`, by name; the rest is how the text is cut into batches."""
        return {name: value for name, value in vars(self).items() if name not in ("batch_size", "seq_len", "sampling")}


@dataclass(frozen=True)
class ModelConfig:
    """Model (embedding, recurrent layers, decoder).

    Parameters
    ----------
    cell
        Recurrent cell of each layer: rnn, gru, lstm, or one that the plugin registers.
    plugin
        Python file, or module:class, that registers the cell. It is executed, so name only code that you trust.
    layers
        Number of recurrent layers.
    hidden_size
        Hidden units of each layer.
    embedding_size
        Size of the embedding of a symbol; 0: one-hot vectors.
    activation
        Non-linearity of the cell rnn; gru and lstm have their own.
    dropout
        Probability of dropping a value between two layers during training.
    residual
        Add the input of each layer, from the second on, to its output.
    layer_norm
        Apply layer normalization to the input and the recurrent projection of each cell.
    zoneout
        Probability that a unit keeps its previous state in a step of training.
    tied
        Share one weight between embedding and decoder; embedding_size must equal hidden_size.
    init
        Initialization of the weights. deep: recurrent weights orthogonal, input weights scaled by depth; orthogonal,
        identity: recurrent weights as named, the others xavier; normal: all N(0, 0.01); xavier: all xavier.
    backend
        Implementation of the recurrent layers: this package, or the fused layers of gluon.rnn.
    """

    cell: str = "rnn"
    plugin: Optional[str] = None
    layers: int = 2
    hidden_size: int = 256
    embedding_size: int = 256
    activation: Literal["tanh", "relu"] = "tanh"
    dropout: float = 0.2
    residual: bool = True
    layer_norm: bool = False
    zoneout: float = 0.0
    tied: bool = False
    init: Literal["deep", "orthogonal", "identity", "normal", "xavier"] = "deep"
    backend: Literal["deeprnn", "gluon"] = "deeprnn"

    @property
    def network_options(self) -> dict[str, Any]:
        """The arguments of `LanguageModel` by name, after its three sizes; the rest is how it is loaded and begun."""
        others = ("hidden_size", "layers", "plugin", "init")
        return {name: value for name, value in vars(self).items() if name not in others}

    def __post_init__(self) -> None:
        check_fields(self, layers=1, hidden_size=1)
        if self.plugin is None:
            check_cell(self.cell)
        elif self.cell in CELLS:
            raise ValueError(f"cell={self.cell!r} is built in: name the cell that plugin={self.plugin!r} registers")
        check_fraction("dropout", self.dropout)
        check_fraction("zoneout", self.zoneout)
        if self.tied and self.embedding_size != self.hidden_size:
            sizes = f"embedding_size={self.embedding_size} and hidden_size={self.hidden_size}"
            raise ValueError(f"tied=True needs embedding and hidden layers of one size, got {sizes}")
        if self.backend == "gluon":
            check_choice("cell", self.cell, CELLS)  # the backend has no others
            for name, off in (("residual", False), ("layer_norm", False), ("zoneout", 0.0)):
                value = getattr(self, name)
                if value != off:
                    raise ValueError(f"backend='gluon' has no {name}={value}; use {name}={off}")
        check_activation(self.cell, self.activation)


@dataclass(frozen=True)
class TrainConfig:
    """Training, and what is reported about it.

    Parameters
    ----------
    epochs
        Passes over the training part.
    optimizer
        Update rule.
    lr
        Peak learning rate.
    schedule
        Learning rate after the warm-up. constant: no decay; cosine: to 0 along half a cosine; step: divided by 10 after
        half of the updates and again after three quarters.
    warmup
        Updates over which the learning rate rises linearly from 0.
    clip
        Largest global norm of the gradient; larger ones are scaled down. 0: no clipping.
    loss
        What is minimized. full: the cross-entropy over the whole vocabulary; sampled: over a sample of the
        vocabulary, which saves time and memory when it is large; nce: noise-contrastive estimation with such a sample.
        Validation and test always use the whole vocabulary; the running training loss is then of the sample.
    samples
        Symbols in a sample, for loss sampled and nce; at most half of the vocabulary.
    seed
        Seed of all random numbers.
    patience
        Stop after this many epochs without a lower validation loss; 0: never.
    checkpoint_minutes
        Save a checkpoint every N minutes; 0: only after each epoch and when a signal ends the training.
    checkpoint_steps
        Also save a checkpoint every N updates; 0: off.
    on_nan
        What to do when the loss is no longer finite. stop: end; rollback: go back to the last checkpoint and go on with
        half the learning rate, at most three times.
    sample_every
        Show generated text every N epochs; 0: only at the end.
    sample_length
        Length of the generated text, in symbols.
    sample_prefix
        Beginning of the generated text; separate the prefixes of several texts by |.
    sample_greedy
        Generate the most probable symbol each time instead of sampling.
    diagnose
        Before training and after each epoch, measure signal, gradient and update of each layer, print what is wrong,
        and write the measurements to diagnosis.jsonl.
    threads
        Threads to compute with; 0: OMP_NUM_THREADS if it is set, otherwise one per core. More threads help where cores
        are idle, large layers most.
    ctx
        Device to compute on, cpu or gpu, or several such as gpu(0),gpu(1): each takes a part of every batch.
    kvstore
        How gradients are summed. device: those of several devices, on one of them; local: in the memory of the host;
        dist_sync, dist_device_sync: those of several processes as well (docs/several_processes.md).
    timeout
        Seconds to wait for another process that does not connect, or shows no sign of life, before the run ends.
    tensorboard
        Also write TensorBoard events to the run's folder.
    """

    epochs: int = 12
    optimizer: Literal["adam", "sgd", "rmsprop"] = "adam"
    lr: float = 5e-3
    schedule: Literal["constant", "cosine", "step"] = "cosine"
    warmup: int = 0
    clip: float = 1.0
    loss: Literal["full", "sampled", "nce"] = "full"
    samples: int = 8192
    seed: int = 0
    patience: int = 0
    checkpoint_minutes: float = 5.0
    checkpoint_steps: int = 0
    on_nan: Literal["stop", "rollback"] = "stop"
    sample_every: int = 5
    sample_length: int = 200
    sample_prefix: str = ""
    sample_greedy: bool = False
    diagnose: bool = False
    threads: int = 1
    ctx: str = "cpu"
    kvstore: Literal["device", "local", "dist_sync", "dist_device_sync"] = "device"
    timeout: float = 60.0
    tensorboard: bool = False

    def __post_init__(self) -> None:
        check_fields(self, epochs=1, sample_length=1, samples=1)
        check_devices("ctx", self.ctx)
        for name in ("lr", "timeout"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("clip", "checkpoint_minutes"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if not 1e-37 < self.lr < 3.4e38:  # MXNet's operators take it in float32
            raise ValueError(f"lr must be between 1e-37 and 3.4e38, got {self.lr}")
        if self.threads > MOST_THREADS:
            raise ValueError(f"threads must be at most {MOST_THREADS}, got {self.threads}")
        if self.seed >= 2**31:  # mx.random.seed takes 32 bits with a sign
            raise ValueError(f"seed must be below 2147483648, got {self.seed}")


@dataclass(frozen=True)
class RunConfig:
    """A training run: its folder, text and batches, model, training.

    Parameters
    ----------
    out
        Folder of the run (default: runs/<corpus>-<cell>-<layers>x<hidden size>-<time>).
    """

    out: Optional[str] = None
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        check_fields(self)
        devices = check_devices("ctx", self.train.ctx)
        if self.data.batch_size < len(devices):
            raise ValueError(f"batch_size={self.data.batch_size} cannot be shared by the {len(devices)} devices of ctx")
        if self.model.backend == "gluon" and self.model.dropout and devices[0][0] == "cpu":
            dropout = self.model.dropout
            raise ValueError(
                f"backend='gluon' ignores dropout={dropout} on the CPU: use backend='deeprnn', or dropout=0"
            )
        if self.train.loss != "full" and self.model.tied:
            raise ValueError(f"loss={self.train.loss!r} needs tied=False")
        if self.model.backend == "gluon" and self.train.diagnose:
            raise ValueError(
                "diagnose=True needs backend='deeprnn': the layers of gluon give no access to their values"
            )

    @classmethod
    def from_mapping(cls, options: Mapping[str, Any]) -> RunConfig:
        """Make a run from flat options, such as ``{"layers": 4, "lr": 1e-3}``, and defaults for the rest.

        Raises
        ------
        ValueError, TypeError
            For an unknown option or an invalid value, by name.
        """
        known = cls().to_mapping()
        for key in options:
            if key not in known:
                close = difflib.get_close_matches(str(key), known, n=1)
                hint = f" (did you mean {close[0]!r}?)" if close else ""
                raise ValueError(f"unknown option {key!r}{hint}")
        return cls(
            out=options.get("out"),
            data=select(DataConfig, options),
            model=select(ModelConfig, options),
            train=select(TrainConfig, options),
        )

    def to_mapping(self) -> dict[str, Any]:
        """The run as flat options, with values that YAML and JSON can represent."""
        options = {"out": self.out, **vars(self.data), **vars(self.model), **vars(self.train)}
        return {**options, "split": list(self.data.split)}
