"""Options of the commands that use a trained network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Optional

from .._util.checks import check_encoding
from .fields import check_fields

__all__ = ["EvaluateConfig", "ExportConfig", "GenerateConfig", "LaunchConfig", "ServeConfig"]

Runtime = Optional[Literal["native", "mxnet", "onnx", "torch"]]


@dataclass(frozen=True)
class GenerateConfig:
    """Generated text.

    Parameters
    ----------
    prefix
        Beginning of the text. By default generation starts after the most frequent symbol, which is not shown.
    prefix_file
        Read the beginning of the text from this file, or from standard input if it is -.
    length
        Number of symbols to generate.
    stop
        End a text where these characters first occur in its generated part.
    samples
        Number of texts; they are generated together.
    beam
        Width of a beam search for the most probable text, instead of sampling; 0: sample.
    seed
        Seed of the random numbers. By default each call takes a new one. With several samples the first text is that of
        this seed alone.
    json
        Write one JSON object with all texts instead of the text.
    runtime
        What runs the model (default: native if its kernels support the model, else mxnet; onnx for an .onnx file).
    """

    prefix: str = ""
    prefix_file: Optional[str] = None
    length: int = 500
    stop: Optional[str] = None
    samples: int = 1
    beam: int = 0
    seed: Optional[int] = None
    json: bool = False
    runtime: Runtime = None

    def __post_init__(self) -> None:
        check_fields(self, length=1, samples=1)
        if self.prefix and self.prefix_file:
            raise ValueError(f"prefix={self.prefix!r} and prefix_file={self.prefix_file!r} exclude each other")
        if self.stop == "":
            raise ValueError("stop is empty: give at least one character")
        if self.beam and self.samples > max(self.beam, 1):
            raise ValueError(f"beam={self.beam} finds no more than {self.beam} texts, got samples={self.samples}")


@dataclass(frozen=True)
class EvaluateConfig:
    """Evaluated text.

    Parameters
    ----------
    part
        Part of the run's own text to evaluate (default: test).
    corpus
        Evaluate this text instead, from its first to its last symbol, with the run's vocabulary: a name or a path, as
        for training. With `part`: where the run's own text is now.
    encoding
        Encoding of that text's file.
    per_symbol
        Also show the most surprising symbols of the text: where they are, and what was expected.
    runtime
        What runs the model (default: native, mxnet where the native kernels do not serve, onnx for an .onnx file).
    """

    part: Optional[Literal["train", "valid", "test"]] = None
    corpus: Optional[str] = None
    encoding: str = "utf-8"
    per_symbol: bool = False
    runtime: Runtime = None

    def __post_init__(self) -> None:
        check_fields(self)
        check_encoding("encoding", self.encoding)


@dataclass(frozen=True)
class ExportConfig:
    """Exported model.

    Parameters
    ----------
    format
        What to write. symbol: for MXNet without this package; onnx: for onnxruntime and others; torch: for PyTorch, by
        deeprnn-torch; all: each of them.
    out
        Folder to write; required, and must not exist.
    """

    format: Literal["symbol", "onnx", "torch", "all"] = "all"
    out: Optional[str] = None

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.out:
            raise ValueError("out is missing: give the folder to write, out=FOLDER")


@dataclass(frozen=True)
class LaunchConfig:
    """Processes on this machine.

    Parameters
    ----------
    workers
        Processes that train; each takes a part of every batch.
    servers
        Processes that add up the gradients.
    """

    workers: int = 2
    servers: int = 1

    def __post_init__(self) -> None:
        check_fields(self, workers=1, servers=1)


@dataclass(frozen=True)
class ServeConfig:
    """Served model.

    Parameters
    ----------
    host
        Address to listen on; any but a loopback address needs allow_remote.
    port
        Port to listen on; 0: any that is free.
    runtime
        What runs the model (default: native if its kernels support the model, else mxnet; onnx for an .onnx file).
    allow_remote
        Let other machines in. It needs token_file.
    token_file
        File with a token of at least 16 letters and digits, which every request has to carry.
    hosts
        More host names to accept in requests, separated by commas.
    cors
        Other origins, such as https://example.org, whose pages may use the API, separated by commas.
    slots
        Texts that are written at the same time; more wait.
    waiting
        Requests that may wait. Further ones are refused with status 429.
    connections
        Maximum number of connections.
    max_prefix
        Longest beginning of a text, and longest text to be scored, in characters.
    max_length
        Longest text to be written, in symbols.
    max_samples
        Maximum number of texts in a request.
    max_body
        Largest request, in bytes.
    max_seconds
        Maximum number of seconds for a request, waiting included. Its texts end then.
    grace
        Seconds that running requests get to finish after SIGTERM.
    log_text
        Include the texts of requests in the log.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    runtime: Runtime = None
    allow_remote: bool = False
    token_file: Optional[str] = None
    hosts: Optional[str] = None
    cors: Optional[str] = None
    slots: int = 64
    waiting: int = 128
    connections: int = 512
    max_prefix: int = 20_000
    max_length: int = 10_000
    max_samples: int = 8
    max_body: int = 1_000_000
    max_seconds: float = 120.0
    grace: float = 10.0
    log_text: bool = False

    def __post_init__(self) -> None:
        check_fields(self, slots=1, connections=1, max_prefix=1, max_length=1, max_samples=1, max_body=1)
        if self.port > 65535:
            raise ValueError(f"port must be at most 65535, got {self.port}")
        for name in ("max_seconds", "grace"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
