"""What is shown: lines that stay, errors in one line, commands to type."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

from tqdm import tqdm

__all__ = ["failed", "reason", "say", "typed"]


def say(text: str) -> None:
    """Show lines that stay, above the live one."""
    with tqdm.external_write_mode():
        print(text, flush=True)


def failed(error: object, code: int) -> int:
    """Say in one line what went wrong, and return the exit code."""
    print("deeprnn: error:", reason(error), file=sys.stderr)
    return code


def reason(error: object) -> str:
    """An error in one line."""
    text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
    return " ".join(line.strip() for line in text.splitlines())


def typed(*arguments: str) -> str:
    """What to type for a command of this program, in the environment that it is running in."""
    environment = Path(sys.executable).parent
    if shutil.which("deeprnn") == str(environment / "deeprnn"):
        program = ["deeprnn"]
    else:
        inside = Path.cwd() in environment.parents
        program = [os.path.relpath(sys.executable) if inside else sys.executable, "-m", "deeprnn"]
    return shlex.join([*program, *arguments])
