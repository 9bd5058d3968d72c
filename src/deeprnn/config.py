"""What a run is: frozen dataclasses, and their sum.

Each field is one option: its name is the key in a YAML file and, with dashes, the flag on the command line; type,
choices and default stand beside it, help and unit in the docstring above. The command line is made from these classes,
so nothing about an option is written down twice. Values are checked when a configuration is made.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Optional, TypeVar, get_args, get_origin, get_type_hints

from ._util.checks import check_activation, check_choice, check_fraction, check_size

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = [
    "DataConfig",
    "EvaluateConfig",
    "GenerateConfig",
    "ModelConfig",
    "RunConfig",
    "Split",
    "TrainConfig",
    "chosen",
    "flag",
    "spelled",
]

Part = TypeVar("Part", bound="DataclassInstance")


class Split(NamedTuple):
    """Shares of a text, cut by position."""

    train: float
    valid: float
    test: float

    @classmethod
    def parse(cls, shares: Any) -> Split:
        """From ``"0.8,0.1,0.1"`` or three numbers.

        Raises
        ------
        ValueError
            Where these are not three shares of at least 0, the first above 0, with sum 1.
        """
        try:
            split = cls(*map(float, shares.split(",") if isinstance(shares, str) else shares))
        except (TypeError, ValueError):
            split = cls(0, 0, 0)
        if not (min(split) >= 0 and math.isclose(sum(split), 1, abs_tol=1e-6)):
            raise ValueError(f"--split must be three shares of at least 0 with sum 1, as 0.8,0.1,0.1; got {shares}")
        if not split.train:
            raise ValueError(f"--split {split} leaves nothing to train on")
        return split

    def __str__(self) -> str:
        return ",".join(f"{share:g}" for share in self)


@dataclass(frozen=True)
class DataConfig:
    """The text, and how it is cut into batches.

    Parameters
    ----------
    corpus
        A text by name (pydoc, timemachine, tinyshakespeare, jaychou), or the path of a .txt, .gz or .zip file.
    max_chars
        Use the first so many characters of the text only.
    split
        Shares of the text for training, validation and test, cut by position; a share may be 0.
    unit
        What one symbol is.
    unknown
        Keep a symbol for what the training part does not contain; without it the vocabulary is the symbols alone.
    batch_size
        Sequences side by side in a batch.
    seq_len
        Time steps the gradient runs back through, in symbols.
    sampling
        consecutive: each batch goes on where the last one ended and the state is carried over; random: neither.
    """

    corpus: str = "pydoc"
    max_chars: Optional[int] = None
    split: Split = field(default=Split(0.8, 0.1, 0.1))
    unit: Literal["char", "word"] = "char"
    unknown: bool = True
    batch_size: int = 32
    seq_len: int = 35
    sampling: Literal["consecutive", "random"] = "consecutive"

    def __post_init__(self) -> None:
        object.__setattr__(self, "split", Split.parse(self.split))
        _check(self, max_chars=1, batch_size=1, seq_len=1)
        if not self.corpus:
            raise ValueError("--corpus is empty: give the name of a text or the path of a file")


@dataclass(frozen=True)
class ModelConfig:
    """The network: embedding, recurrent layers, decoder.

    Parameters
    ----------
    cell
        The recurrent cell of each layer.
    layers
        Recurrent layers, one on top of the other.
    hidden_size
        Units in each layer.
    embedding_size
        Length of the vector that a symbol is read as; 0: one-hot.
    activation
        The non-linearity of an rnn; gru and lstm have theirs.
    dropout
        Probability with which a value between two layers is dropped in training.
    residual
        Each layer from the second on adds its input to its output.
    layer_norm
        Normalise the two products of each cell over its units.
    zoneout
        Probability with which a unit keeps its state in a step of training.
    tied
        Embedding and decoder share their weight; --embedding-size must be --hidden-size.
    init
        How the weights begin. deep: orthogonal from state to state, from layer to layer scaled by the depth; orthogonal
        or identity: so from state to state, and xavier elsewhere; normal with standard deviation 0.01; xavier.
    backend
        Whose layers: this package's own, or the fused ones of gluon.rnn.
    """

    cell: Literal["rnn", "gru", "lstm"] = "rnn"
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

    def __post_init__(self) -> None:
        _check(self, layers=1, hidden_size=1)
        check_fraction("--dropout", self.dropout)
        check_fraction("--zoneout", self.zoneout)
        if self.tied and self.embedding_size != self.hidden_size:
            raise ValueError(
                f"--tied needs --embedding-size to be --hidden-size, got {self.embedding_size} and {self.hidden_size}"
            )
        if self.backend == "gluon":
            for name, off in (("residual", False), ("layer_norm", False), ("zoneout", 0.0)):
                value = getattr(self, name)
                if value != off:
                    raise ValueError(f"--backend gluon has no {flag(name)} {value}; use {flag(name)} {off}")
        check_activation(self.cell, self.activation)


@dataclass(frozen=True)
class TrainConfig:
    """The training, and what is shown of it.

    Parameters
    ----------
    epochs
        Passes over the training part.
    optimizer
        The update rule.
    lr
        Learning rate, at its highest.
    schedule
        How the learning rate falls after the warm-up: not at all (constant), to 0 along half a cosine, or to a tenth at
        half of the way and to a hundredth at three quarters (step).
    warmup
        Updates over which the learning rate rises from 0.
    clip
        Largest global norm of the gradient; 0: any.
    seed
        Seed of all random numbers.
    patience
        Stop after so many epochs without a better validation loss; 0: never.
    sample_every
        Epochs from one sample of generated text to the next; 0: only at the end.
    sample_length
        Symbols in a sample.
    sample_prefix
        What a sample begins with; one | between the prefixes of several samples.
    sample_greedy
        Samples take the most probable symbol each time, rather than draw one.
    diagnose
        Before training and after each epoch, look at signal, gradient and update of each layer, say what is wrong, and
        keep it in diagnosis.jsonl.
    threads
        Threads to compute with; 0: as OMP_NUM_THREADS says, or else one for each core. At these sizes a second thread
        gains a fifth on an idle machine, and loses all on a busy one, where the two wait for each other.
    ctx
        Where to compute.
    tensorboard
        Write TensorBoard events into the run folder, too.
    """

    epochs: int = 12
    optimizer: Literal["adam", "sgd", "rmsprop"] = "adam"
    lr: float = 5e-3
    schedule: Literal["constant", "cosine", "step"] = "cosine"
    warmup: int = 0
    clip: float = 1.0
    seed: int = 0
    patience: int = 0
    sample_every: int = 5
    sample_length: int = 200
    sample_prefix: str = ""
    sample_greedy: bool = False
    diagnose: bool = False
    threads: int = 1
    ctx: Literal["cpu", "gpu"] = "cpu"
    tensorboard: bool = False

    def __post_init__(self) -> None:
        _check(self, epochs=1, sample_length=1)
        if not self.lr > 0:
            raise ValueError(f"--lr must be above 0, got {self.lr}")
        if not self.clip >= 0:
            raise ValueError(f"--clip must be at least 0, got {self.clip}")
        if self.seed >= 2**31:  # mx.random.seed takes 32 bits with a sign
            raise ValueError(f"--seed must be below 2147483648, got {self.seed}")


@dataclass(frozen=True)
class RunConfig:
    """One run: where it is kept, what it reads, what it trains and how.

    Parameters
    ----------
    out
        Folder of the run; by default runs/<corpus>-<cell>-<layers>x<hidden-size>-<time>.
    """

    out: Optional[str] = None
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        _check(self)
        if self.model.backend == "gluon" and self.model.dropout and self.train.ctx == "cpu":
            raise ValueError(
                f"--backend gluon ignores --dropout {self.model.dropout} on the CPU: "
                "use --backend deeprnn, or --dropout 0"
            )
        if self.model.backend == "gluon" and self.train.diagnose:
            raise ValueError("--diagnose looks into the layers of --backend deeprnn; gluon's are closed")

    @classmethod
    def from_mapping(cls, options: Mapping[str, Any]) -> RunConfig:
        """The run that flat options such as ``{"layers": 4, "lr": 1e-3}`` describe, with the defaults for the rest.

        Raises
        ------
        ValueError, TypeError
            For an unknown key and for an impossible value, by name.
        """
        known = cls().to_mapping()
        for key in options:
            if key not in known:
                close = difflib.get_close_matches(str(key), known, n=1)
                hint = f" (did you mean {close[0]!r}?)" if close else ""
                raise ValueError(f"unknown option {key!r}{hint}")
        return cls(
            out=options.get("out"),
            data=chosen(DataConfig, options),
            model=chosen(ModelConfig, options),
            train=chosen(TrainConfig, options),
        )

    def to_mapping(self) -> dict[str, Any]:
        """The same run as flat options, in types that YAML and JSON can hold."""
        options = {"out": self.out, **vars(self.data), **vars(self.model), **vars(self.train)}
        return {**options, "split": list(self.data.split)}


@dataclass(frozen=True)
class GenerateConfig:
    """The text that is written.

    Parameters
    ----------
    prefix
        What the text begins with; by default it goes on from the most frequent symbol, which is not shown.
    length
        Symbols that are added.
    seed
        Seed of the random numbers; by default another text each time.
    """

    prefix: str = ""
    length: int = 500
    seed: Optional[int] = None

    def __post_init__(self) -> None:
        _check(self, length=1)


@dataclass(frozen=True)
class EvaluateConfig:
    """What is measured.

    Parameters
    ----------
    part
        The part of the text.
    """

    part: Literal["train", "valid", "test"] = "test"

    def __post_init__(self) -> None:
        _check(self)


def chosen(part: type[Part], options: Mapping[str, Any]) -> Part:
    """Make a `part` from those of the `options` that are its own."""
    return part(**{f.name: options[f.name] for f in dataclasses.fields(part) if f.name in options})


def flag(name: str) -> str:
    """A field as it is spelled on the command line: ``hidden_size`` -> ``--hidden-size``."""
    return "--" + name.replace("_", "-")


def spelled(options: Mapping[str, Any]) -> list[str]:
    """Options as they are typed: ``{"hidden_size": 8, "max_chars": None}`` -> ``--hidden-size=8 --max-chars=null``."""
    values = {
        name: ",".join(map(str, value)) if isinstance(value, (list, tuple)) else "null" if value is None else value
        for name, value in options.items()
    }
    return [f"{flag(name)}={value}" for name, value in values.items()]


def _check(config: Any, **minimum: int) -> None:
    """Hold each field to its annotation; whole numbers are at least 0, or the `minimum` of their name."""
    for name, hint in get_type_hints(type(config)).items():
        value = getattr(config, name)
        if value is None and type(None) in get_args(hint):
            continue
        if get_origin(hint) is Literal:
            check_choice(flag(name), value, get_args(hint))
        elif hint == Optional[int] and not isinstance(value, int):
            raise TypeError(f"{flag(name)} must be a whole number or null, got {value!r}")
        elif hint in (int, Optional[int]):
            check_size(flag(name), value, minimum.get(name, 0))
        elif hint is float and (type(value) not in (int, float) or not math.isfinite(value)):
            raise TypeError(f"{flag(name)} must be a finite number, got {value!r}")
        elif hint in (str, Optional[str]) and not isinstance(value, str):
            raise TypeError(f"{flag(name)} must be a text, got {value!r}")
        elif hint is bool and not isinstance(value, bool):
            raise TypeError(f"{flag(name)} must be true or false, got {value!r}")
