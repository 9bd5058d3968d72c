"""The scheduler's part: it knows who has come, hears that each lives, and lets all end if one is lost.

a process comes         {"hello": VERSION, "kind": "worker", "number": 1, "of": "process 12 on a", ...}
all have come           {"name": "worker 1"} to each, which then joins the key-value store
it has joined it        {"joined": true}
it is ready to train    {"ready": {...}}: text, options and position, which must be the same everywhere
all are ready           {"go": true} to each
a worker lives          {"still": 3}, every second: for how many its main thread has been where it is
a signal has come       {"signal": 15}, handed on to worker 0
it has ended            {"end": 0}; when all workers have, {"end": 0} to each
it ends alone           {"failed": 2}
one is lost             {"lost": "worker 1 (process 12 on a) has died"} to each
"""

from __future__ import annotations

import selectors
import signal
import socket
import time
from dataclasses import dataclass, field
from typing import Any, Callable, Optional

from .role import Role
from .wire import LAST_WORD, SIGN_OF_LIFE, Message, Patience, Wire

__all__ = ["VERSION", "Hub"]

VERSION = 1
"""Of the messages."""

STALLED = 10
"""Times the timeout: if no worker has moved for so long, they wait for each other, though all are there."""


@dataclass(eq=False)
class Peer:
    """A process that has come; without a kind, a connection that has not introduced itself."""

    wire: Wire
    patience: Patience
    kind: str = ""
    number: Optional[int] = None
    of: str = ""
    facts: Message = field(default_factory=dict)
    joined: bool = False
    ready: bool = False
    ended: bool = False
    still: float = 0.0

    @property
    def name(self) -> str:
        """As ``worker 1``."""
        return f"{self.kind} {self.number}"

    def __str__(self) -> str:
        return f"{self.name} ({self.of})"


class Hub:
    """Serves the processes of a run until it ends.

    Parameters
    ----------
    role
        Of the scheduler.
    timeout
        Seconds of silence after which a process is lost, and within which all have to come.

    Raises
    ------
    OSError
        If the address cannot be listened at.
    """

    def __init__(self, role: Role, timeout: float, tick: float) -> None:
        self._role, self._timeout, self._tick = role, timeout, tick
        self._peers: list[Peer] = []
        self._named = self._went = False
        self._begun = time.monotonic()
        self._listening = socket.create_server((role.address, role.port + 1))
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listening, selectors.EVENT_READ)

    def serve(self, signals: Any, received: Callable[[], list[int]]) -> str:
        """Serve until the run has ended (the result is empty) or somebody is lost (the result says who).

        Parameters
        ----------
        signals, received
            What becomes readable when this process gets a signal, and the numbers of those that came.
        """
        self._selector.register(signals, selectors.EVENT_READ)
        before = time.monotonic()
        while True:
            events = self._selector.select(self._tick)
            lost = ""
            for key, _ in events:
                if key.fileobj is self._listening:
                    self._accept()
                elif key.fileobj is signals:
                    lost = lost or "".join(map(self._hand_on, received()[:1]))
                else:
                    lost = lost or self._hear(key.data)
            if not events or time.monotonic() - before >= self._tick:
                now = time.monotonic()
                lost = lost or self._look(now - before)
                before = now
            if lost or self._ended():
                self._end({"lost": lost} if lost else {"end": 0})
                return lost

    def _accept(self) -> None:
        try:
            wire = Wire(self._listening.accept()[0])
        except OSError:  # it has gone again
            return
        peer = Peer(wire, Patience(self._timeout, self._tick))
        self._peers.append(peer)
        self._selector.register(wire, selectors.EVENT_READ, peer)

    def _forget(self, peer: Peer) -> None:
        self._selector.unregister(peer.wire)
        self._peers.remove(peer)
        peer.wire.close()

    def _hear(self, peer: Peer) -> str:
        """Take what a process sends; returns who is lost by it."""
        messages = peer.wire.receive()
        if messages is None:
            self._forget(peer)
            return f"{peer} has died" if peer.kind and self._named and not peer.ended else ""
        peer.patience.heard()
        for message in messages:
            if not peer.kind:
                refusal = self._introduced(peer, message)
                if refusal:
                    peer.wire.send({"lost": refusal})
                    self._forget(peer)
                    return ""
                self._name_all()
            elif "joined" in message:
                peer.joined = True
            elif "ready" in message:
                peer.facts, peer.ready = message["ready"], True
                difference = self._compare()
                if difference:
                    return difference
                self._let_go()
            elif "still" in message:
                peer.still = message["still"]
            elif "signal" in message:
                early = self._hand_on(message["signal"])
                if early:
                    return early
            elif "end" in message:
                peer.ended = True
            elif "failed" in message:
                peer.ended = True
                return f"{peer} has ended with exit code {message['failed']}"
        return ""

    def _introduced(self, peer: Peer, message: Message) -> str:
        """Take the first message of a process; returns why it is refused."""
        role = self._role
        if message.get("hello") != VERSION or message.get("kind") not in ("worker", "server"):
            return "this version of deeprnn does not understand that of the scheduler"
        kind, number, of = message["kind"], message.get("number"), str(message.get("of"))
        count = role.workers if kind == "worker" else role.servers
        if number is not None and number not in range(count):
            return f"{kind} {number} is none of {count} (DMLC_NUM_{kind.upper()})"
        given = (message.get("workers"), message.get("servers"))
        if given != (role.workers, role.servers):
            return (
                f"this {kind} was started for {given[0]} workers and {given[1]} servers, and the scheduler for "
                f"{role.workers} and {role.servers} (DMLC_NUM_WORKER, DMLC_NUM_SERVER)"
            )
        alike = [each for each in self._peers if each.kind == kind]
        if number is not None and any(each.number == number for each in alike):
            other = next(each for each in alike if each.number == number)
            return f"{kind} {number} is {other.of} already, and {of} was given the same number: DMLC_{kind.upper()}_ID"
        if len(alike) == count:
            return f"there are {count} of {count} {kind}s already (DMLC_NUM_{kind.upper()})"
        peer.kind, peer.number, peer.of = kind, number, of
        return ""

    def _name_all(self) -> None:
        """When all have come, number those that have no number, and tell each its name."""
        known = [peer for peer in self._peers if peer.kind]
        if self._named or len(known) < len(self._role.expected):
            return
        for kind, count in (("worker", self._role.workers), ("server", self._role.servers)):
            alike = [peer for peer in known if peer.kind == kind]
            free = [number for number in range(count) if number not in [peer.number for peer in alike]]
            for peer in alike:
                if peer.number is None:
                    peer.number = free.pop(0)
                peer.wire.send({"name": peer.name, "number": peer.number})
        self._named, self._begun = True, time.monotonic()

    def _let_go(self) -> None:
        workers = self._workers()
        if not self._went and all(peer.ready for peer in workers):
            self._went = True
            self._tell({"go": True})

    def _compare(self) -> str:
        """What a process has that differs from what worker 0 has; empty if there is nothing."""
        first = next((peer for peer in self._workers() if peer.number == 0), None)
        if first is None or not first.ready:
            return ""
        for peer in self._workers():
            for name in first.facts if peer.ready else ():
                if peer.facts.get(name) != first.facts[name]:
                    here, there = peer.facts.get(name), first.facts[name]
                    return f"{peer} has {name} {here} and {first} has {there}: all must have the same"
        return ""

    def _workers(self) -> list[Peer]:
        return [peer for peer in self._peers if peer.kind == "worker"]

    def _hand_on(self, number: int) -> str:
        """Let worker 0 have a signal that another process got; before the training, all end."""
        if not self._went:
            return f"stopped by {signal.Signals(number).name} before the training has begun"
        for peer in self._workers():
            if peer.number == 0:
                peer.wire.send({"signal": number})
        return ""

    def _look(self, elapsed: float) -> str:
        """Show that this process lives, and see who is silent, or has not come."""
        for peer in list(self._peers):
            peer.wire.send(SIGN_OF_LIFE)
            if peer.patience.over(elapsed):
                if peer.kind:
                    return f"{peer} has not been heard of for {self._timeout:g} s"
                self._forget(peer)
        if time.monotonic() - self._begun < self._timeout:
            return ""
        if not self._named:
            names = {peer.name for peer in self._peers if peer.number is not None}
            unnamed = {
                kind: sum(p.kind == kind and p.number is None for p in self._peers) for kind in ("worker", "server")
            }
            missing = [name for name in self._role.expected if name not in names]
            for kind, count in unnamed.items():
                alike = [name for name in missing if name.startswith(kind)]
                missing = [name for name in missing if name not in alike[:count]]
            verb = "has" if len(missing) == 1 else "have"
            return f"{', '.join(missing)} {verb} not come within {self._timeout:g} s"
        absent = [str(peer) for peer in self._peers if peer.kind == "worker" and not peer.joined]
        if absent:
            return f"{', '.join(absent)} cannot reach the key-value store: is a port closed between the machines?"
        limit = STALLED * self._timeout
        if self._went and all(peer.still > limit for peer in self._workers()):
            return f"no worker has moved for {limit:g} s: they wait for each other, or for a server out of reach"
        return ""

    def _ended(self) -> bool:
        return self._named and all(peer.ended for peer in self._workers())

    def _end(self, message: Message) -> None:
        self._tell(message)
        until = time.monotonic() + LAST_WORD
        for peer in self._peers:
            peer.wire.finish(until)
        self._selector.close()
        self._listening.close()

    def _tell(self, message: Message) -> None:
        for peer in self._peers:
            peer.wire.send(message)
