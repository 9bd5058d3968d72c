"""Signals that ask a process to end: SIGINT (Ctrl-C), SIGTERM, SIGHUP."""

from __future__ import annotations

import signal
import threading
from collections.abc import Mapping
from typing import Any, Callable

__all__ = ["ENDING", "restore", "take"]

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def take(handler: Callable[..., Any]) -> dict[int, Any]:
    """Handle these signals by `handler`, and return the handlers before, for `restore`.

    A signal that is ignored, as SIGHUP is below nohup, stays so and is not among them. Outside the main thread nothing
    is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {
        int(number): signal.signal(number, handler)
        for number in ENDING
        if signal.getsignal(number) is not signal.SIG_IGN
    }


def restore(before: Mapping[int, Any]) -> None:
    """Handle signals as before `take`."""
    for number, handler in before.items():
        signal.signal(number, handler)
