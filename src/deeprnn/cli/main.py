"""The program `deeprnn`: parses the arguments, builds the command and runs it.

    train       configuration -> text -> ids -> batches -> network -> training -> checkpoints -> summary
    generate    run, exported folder or ONNX file -> model -> text
    evaluate    run, exported folder or ONNX file -> model -> loss
    export      run -> network -> folder for MXNet, ONNX and PyTorch
    serve       runs, exported folders or ONNX files -> models -> a page and an API
    launch      several processes that train one model

Invalid arguments are reported in one line before any work starts (exit code 2). A failure during the work gives exit
code 1, SIGINT (Ctrl-C) 130, SIGTERM 143, SIGHUP 129. MXNet is loaded only after the arguments have been checked, so
help and error messages are fast.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from typing import Callable, Optional

from ..config import OptionsFileError
from ..distributed.watch import leave
from .console import Nowhere, failed, silence
from .evaluate import build_evaluate
from .export import build_export
from .generate import build_generate
from .launch import build_launch
from .options import in_flags, parse
from .serve import build_serve
from .train import build_train

__all__ = ["main"]

Work = Callable[[], int]

OUT_OF_MEMORY = "out of memory: a smaller text, batch, length or network needs less"


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command line `argv`, by default that of the process; returns the exit code.

    A process that trains with others ends here, see `distributed.watch`.
    """
    code = 1
    try:
        code = run(argv)
    finally:
        leave(code)
    return code


def run(argv: Optional[Sequence[str]]) -> int:
    """Run a command line; returns the exit code."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed before the program began
            setattr(sys, name, Nowhere())
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # the text may have characters that the terminal cannot show
    try:
        try:
            work = build(argv)
        except OptionsFileError as error:
            return failed(error, 2)
        except BrokenPipeError:
            raise
        except (ValueError, TypeError, OSError) as error:
            return failed(error if isinstance(error, OSError) and error.filename else in_flags(str(error)), 2)
        return work()
    except KeyboardInterrupt:
        return failed("interrupted", 130)
    except BrokenPipeError:
        silence()  # the reader has closed the pipe
        return 1
    except OSError as error:
        silence()  # what is left for standard output may be what could not be written
        return failed(error, 1)
    except MemoryError:
        return failed(OUT_OF_MEMORY, 1)
    except Exception as error:
        if type(error).__name__ != "MXNetError":
            raise
        message = str(error).strip().splitlines()[-1].rpartition("MXNetError: ")[2]  # after the stack of C++
        return failed(OUT_OF_MEMORY if "allocate" in message else f"MXNet: {message}", 1)


def build(argv: Optional[Sequence[str]]) -> Work:
    """Check the arguments and prepare the command; the result does the work and returns the exit code.

    Raises
    ------
    ValueError, TypeError, OSError
        For everything that the user can correct.
    """
    given = parse(argv)
    builders = {
        "train": build_train,
        "generate": build_generate,
        "evaluate": build_evaluate,
        "export": build_export,
        "serve": build_serve,
        "launch": build_launch,
    }
    return builders[given.command](vars(given[given.command]))
