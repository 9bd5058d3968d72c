"""A process's own part: it comes to the scheduler, shows that it lives, and ends if another is lost.

MXNet waits for other processes inside C calls, which nothing interrupts. So a thread of each process ends it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from typing import Any, NoReturn, Optional

from .._util.signals import take
from .hub import VERSION, Hub
from .role import Role
from .wire import LAST_WORD, SIGN_OF_LIFE, Message, Patience, Wire

__all__ = ["Watch", "leave", "watched"]

_watch: Optional[Watch] = None


class Watch:
    """The thread of a process that trains with others. There is one in a process, see `watched`.

    Parameters
    ----------
    role
        Of this process.
    timeout
        Seconds of silence after which another process is lost, and within which all have to come.
    """

    def __init__(self, role: Role, timeout: float) -> None:
        self.role, self.timeout = role, timeout
        self.together = False
        """Whether all workers end as this one does, and are to be waited for."""
        self._leaving = False
        self.signal: Optional[int] = None
        """The signal that a server or the scheduler got, in worker 0. It may have come here, too, as a signal."""
        self._tick = min(1.0, timeout / 10)
        self._named, self._go, self._over = threading.Event(), threading.Event(), threading.Event()
        self.number = role.number or 0
        self._signals, self._waking = socket.socketpair()
        self._wire: Optional[Wire] = None

    def start(self) -> None:
        """Begin to watch: the scheduler serves from now on, the others have all come when this returns.

        Raises
        ------
        ValueError
            If the scheduler cannot listen, or cannot be reached.
        """
        if self.role.kind == "scheduler":
            hub = self._hub()
            self._ward_off_signals()
            threading.Thread(target=self._serve, args=(hub,), daemon=True).start()
            return
        self._wire = self._connect()
        if self.role.kind == "server":
            self._ward_off_signals()
        threading.Thread(target=self._watch_all, daemon=True).start()
        self._named.wait()

    def joined(self) -> None:
        """This process has joined the key-value store."""
        self._send({"joined": True})

    def ready(self, facts: Mapping[str, Any]) -> None:
        """Wait until all workers are ready to train, and have the same `facts`."""
        self._send({"ready": dict(facts)})
        self._go.wait()

    def leave(self, code: int) -> NoReturn:
        """End this process; if all end as it does, when they are all so far.

        MXNet's own end of a key-value store waits without a limit, so this goes without it.
        """
        with contextlib.suppress(OSError, ValueError):
            if sys.exc_info()[0]:
                traceback.print_exc()  # as nobody else will
            sys.stdout.flush()
            sys.stderr.flush()
        if self.together:
            self._send({"end": code})
            self._over.wait()
        elif self._wire:
            self._leaving = True
            self._send({"failed": code})
            self._wire.finish(time.monotonic() + LAST_WORD)
        os._exit(code)

    def _send(self, message: Message) -> None:
        if self._wire:
            self._wire.send(message)

    def _hub(self) -> Hub:
        address, port = self.role.address, self.role.port
        try:
            with socket.create_server((address, port)):  # MXNet, which takes it next, would abort
                pass
            port += 1
            return Hub(self.role, self.timeout, self._tick)
        except OSError as error:
            raise ValueError(
                f"the scheduler cannot listen at {address}, port {port}: {error.strerror}; DMLC_PS_ROOT_URI must be an "
                "address of its machine, and DMLC_PS_ROOT_PORT and the port after it free"
            ) from error

    def _connect(self) -> Wire:
        """Come to the scheduler: the connection over which it has answered.

        A tunnel or proxy accepts a connection before the scheduler listens, and hangs up then: that is tried again.
        """
        role, port = self.role, self.role.port + 1
        of = f"process {os.getpid()} on {socket.gethostname()}"
        numbers = {"number": role.number, "workers": role.workers, "servers": role.servers}
        until = time.monotonic() + self.timeout
        while True:
            try:
                wire = Wire(socket.create_connection((role.address, port), timeout=self.timeout / 4))
                wire.send({"hello": VERSION, "kind": role.kind, "of": of, **numbers})
                if messages := wire.first(until):
                    for message in messages:
                        self._take(message)
                    return wire
                wire.close()
                raise ConnectionError("no answer")
            except OSError as error:
                if time.monotonic() > until:
                    raise ValueError(
                        f"there is no scheduler at {role.address}, port {port} ({error.strerror or error}), for "
                        f"{self.timeout:g} s: does it run, and are DMLC_PS_ROOT_URI and DMLC_PS_ROOT_PORT right?"
                    ) from error
                time.sleep(self._tick / 5)

    def _ward_off_signals(self) -> None:
        """Hand signals on to worker 0, which ends the run in order: the main thread is inside MXNet for good."""
        self._waking.setblocking(False)
        signal.set_wakeup_fd(self._waking.fileno(), warn_on_full_buffer=False)
        take(lambda *_: None)

    def _received(self) -> list[int]:
        return list(self._signals.recv(100))

    def _serve(self, hub: Hub) -> None:
        try:
            lost = hub.serve(self._signals, self._received)
        except Exception as error:  # then nobody is watched any more
            lost = f"the scheduler has failed: {type(error).__name__}: {error}"
        self._end(lost)

    def _watch_all(self) -> None:
        try:
            self._watch()
        except Exception as error:  # then this process would wait for ever
            self._end(f"the watch has failed: {type(error).__name__}: {error}")

    def _watch(self) -> None:
        assert self._wire
        patience, before = Patience(self.timeout, self._tick), time.monotonic()
        scheduler = f"the scheduler at {self.role.address}, port {self.role.port + 1},"
        main, place, since = threading.main_thread().ident or 0, None, before
        while not self._leaving:
            frame = sys._current_frames().get(main)
            now_at = frame and (id(frame), frame.f_lasti)
            if now_at != place:
                place, since = now_at, time.monotonic()
            self._wire.send({"still": time.monotonic() - since} if self.role.kind == "worker" else SIGN_OF_LIFE)
            sources: list[Any] = [self._wire, self._signals]
            readable, _, _ = select.select(sources, [], [], self._tick)
            if self._signals in readable:
                for number in self._received():
                    self._wire.send({"signal": number})
            if self._wire in readable:
                messages = self._wire.receive()
                if messages is None:
                    self._end(f"{scheduler} has died")
                patience.heard()
                for message in messages or ():
                    self._take(message)
            now = time.monotonic()
            if patience.over(now - before):
                self._end(f"{scheduler} has not been heard of for {self.timeout:g} s")
            before = now

    def _take(self, message: Message) -> None:
        if "name" in message:
            self.number = message["number"]
            self._named.set()
        elif "go" in message:
            self._go.set()
        elif "signal" in message:
            self.signal = message["signal"]
        elif "end" in message:
            self._leaving = True
            self._over.set()
            if self.role.kind == "server":
                self._end("")
        elif "lost" in message:
            self._end(message["lost"])

    def _end(self, lost: str) -> None:
        """End this process, whatever its main thread waits for; with a line, if somebody is lost."""
        if self._leaving and lost:  # it ends already, for a reason of its own
            return
        with contextlib.suppress(OSError):  # whoever read there may be gone, or stopped
            if lost and select.select([], [2], [], LAST_WORD)[1]:
                os.write(2, f"deeprnn: error: {lost}\n".encode())
        os._exit(1 if lost else 0)


def watched(role: Role, timeout: float) -> Watch:
    """Start the watch of this process; raises as `Watch.start`."""
    global _watch
    watch = Watch(role, timeout)
    watch.start()
    _watch = watch
    return watch


def leave(code: int) -> None:
    """End this process with `code` if it trains with others, see `Watch.leave`; otherwise do nothing."""
    if _watch:
        _watch.leave(code)
