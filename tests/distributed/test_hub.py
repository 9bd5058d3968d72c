"""The scheduler's part, with processes played by this one."""

from __future__ import annotations

import contextlib
import json
import select
import signal
import socket
import threading
import time

import pytest
from proxy import Proxy

from deeprnn.cli.launch import free_port
from deeprnn.distributed.hub import VERSION, Hub
from deeprnn.distributed.role import Role
from deeprnn.distributed.watch import Watch
from deeprnn.distributed.wire import Patience

TIMEOUT, TICK = 0.5, 0.02


class Played:
    """A process that sends what the test gives it."""

    def __init__(self, port, kind="worker", number=None, **changes):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.heard, self.alive = [], True
        hello = {
            "hello": VERSION,
            "kind": kind,
            "number": number,
            "of": f"the {kind} {number}",
            "workers": 2,
            "servers": 1,
        }
        self.say({**hello, **changes})
        threading.Thread(target=self.live, daemon=True).start()
        threading.Thread(target=self.listen, daemon=True).start()

    def say(self, message):
        with contextlib.suppress(OSError):
            self.socket.sendall(json.dumps(message).encode() + b"\n")

    def live(self):
        while self.alive:
            self.say({})
            time.sleep(TICK)

    def listen(self):
        with contextlib.suppress(OSError, ValueError):
            for line in self.socket.makefile():
                self.heard.append(json.loads(line))
                if "lost" in self.heard[-1]:
                    break
        self.end()
        self.heard.append("end of the connection")

    def expect(self, key):
        """What comes under this key, within ten seconds."""
        for _ in range(500):
            for message in list(self.heard):
                if key in message:
                    return message[key] if isinstance(message, dict) else message
            time.sleep(0.02)
        raise AssertionError((key, self.heard))

    def end(self):
        self.alive = False
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


class Run:
    """A hub for two workers and a server, in a thread; `lost` is its result."""

    def __init__(self):
        self.port = free_port() + 1
        hub = Hub(Role("scheduler", "127.0.0.1", self.port - 1, 2, 1), TIMEOUT, TICK)
        self.signals, self.waking = socket.socketpair()
        self.peers, self.lost = [], None
        self.thread = threading.Thread(target=self.serve, args=(hub,), daemon=True)
        self.thread.start()

    def serve(self, hub):
        self.lost = hub.serve(self.signals, lambda: list(self.signals.recv(100)))

    def comes(self, kind="worker", number=None, **changes):
        self.peers.append(Played(self.port, kind, number, **changes))
        return self.peers[-1]

    def all_come(self, first=None, second=None):
        return [self.comes("worker", first), self.comes("server"), self.comes("worker", second)]

    def ended(self):
        self.thread.join(10)
        assert not self.thread.is_alive()
        return self.lost


@pytest.fixture
def run():
    run = Run()
    yield run
    for peer in run.peers:
        peer.end()
    run.ended()
    run.signals.close()
    run.waking.close()


def go(peers):
    for peer in peers:
        peer.expect("name")
        if peer is not peers[1]:
            peer.say({"joined": True})
            peer.say({"ready": {"step": 0}})
    assert peers[0].expect("go") and peers[2].expect("go")


def test_from_the_beginning_to_the_end(run):
    peers = run.all_come(second=0)
    assert [peer.expect("name") for peer in peers] == ["worker 1", "server 0", "worker 0"]
    go(peers)
    run.waking.send(bytes([signal.SIGTERM]))  # to the scheduler
    assert peers[2].expect("signal") == signal.SIGTERM
    peers[1].say({"signal": signal.SIGINT})
    time.sleep(3 * TIMEOUT)  # all live
    peers[0].say({"end": 0})
    peers[0].end()  # it need not wait for the others
    peers[2].say({"end": 0})
    assert peers[2].expect("end") == peers[1].expect("end") == 0
    assert [each["signal"] for each in peers[2].heard if "signal" in each] == [signal.SIGTERM, signal.SIGINT]
    assert not any("signal" in each for each in peers[0].heard)
    for peer in peers[1:]:
        peer.end()
    assert run.ended() == ""


@pytest.mark.parametrize("who, name", [(0, "worker 0"), (1, "server 0"), (2, "worker 1")])
@pytest.mark.parametrize("how, expected", [("dies", "has died"), ("silent", "has not been heard of for 0.5 s")])
def test_one_is_lost(run, who, name, how, expected):
    peers = run.all_come(0, 1)
    go(peers)
    begun = time.monotonic()
    if how == "dies":
        peers[who].end()
    else:
        peers[who].alive = False
    others = [peer for peer in peers if peer is not peers[who]]
    for peer in others:
        lost = peer.expect("lost")
        assert lost.startswith(name) and lost.endswith(expected)
        peer.end()
    assert run.ended().endswith(expected) and time.monotonic() - begun < (1 if how == "dies" else 10)


def test_all_are_there_and_nothing_moves(run):
    peers = run.all_come(0, 1)
    go(peers)
    peers[0].say({"still": 99})
    time.sleep(10 * TICK)
    assert run.thread.is_alive()  # the other one moves
    peers[2].say({"still": 99})
    assert peers[0].expect("lost").startswith("no worker has moved for 5 s: ")


def test_one_ends_alone(run):
    peers = run.all_come(0, 1)
    go(peers)
    peers[2].say({"failed": 2})
    assert peers[0].expect("lost") == "worker 1 (the worker 1) has ended with exit code 2"


def test_some_never_come(run):
    peer = run.comes("worker", 1)
    assert peer.expect("lost") == "worker 0, server 0 have not come within 0.5 s"
    assert run.ended()


def test_one_without_a_number_does_not_come(run):
    peers = [run.comes("worker"), run.comes("server", 0)]
    assert peers[0].expect("lost") == "worker 1 has not come within 0.5 s"


def test_they_come_but_cannot_reach_the_store(run):
    peers = run.all_come(0, 1)
    peers[0].say({"joined": True})
    expected = "worker 1 (the worker 1) cannot reach the key-value store: is a port closed between the machines?"
    assert peers[0].expect("lost") == expected


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"number": 0}, "worker 0 is the worker 0 already, and the worker 0 was given the same number: DMLC_WORKER_ID"),
        ({"hello": VERSION + 1}, "this version of deeprnn does not understand that of the scheduler"),
        ({"workers": 3}, "this worker was started for 3 workers and 1 servers, and the scheduler for 2 and 1"),
        ({"kind": "server", "number": None}, "there are 1 of 1 servers already (DMLC_NUM_SERVER)"),
    ],
)
def test_one_is_refused_and_the_others_go_on(run, changes, expected):
    peers = [run.comes("worker", 0), run.comes("server", 0)]
    time.sleep(5 * TICK)
    wrong = run.comes(**{"kind": "worker", "number": 0, **changes})
    assert wrong.expect("lost").startswith(expected)
    peers.append(run.comes("worker", 1))
    go(peers)
    late = run.comes("worker")
    assert late.expect("lost") == "there are 2 of 2 workers already (DMLC_NUM_WORKER)"
    assert run.thread.is_alive()


@pytest.mark.parametrize("facts", [{"step": 5}, {}])
def test_workers_that_differ(run, facts):
    peers = run.all_come(0, 1)
    for peer in (peers[2], peers[0]):
        peer.expect("name")
        peer.say({"joined": True})
        peer.say({"ready": facts if peer is peers[2] else {"step": 0}})
    there = f"step {facts.get('step')}"
    expected = f"worker 1 (the worker 1) has {there} and worker 0 (the worker 0) has 0: all must have the same"
    assert peers[0].expect("lost") == expected


def test_a_signal_before_the_training(run):
    peers = run.all_come(0, 1)
    run.waking.send(bytes([signal.SIGTERM]))
    assert peers[0].expect("lost") == "stopped by SIGTERM before the training has begun"


def test_strangers_do_no_harm(run):
    peers = run.all_come(0, 1)
    for content in (
        b"GET / HTTP/1.1\r\n\r\n",
        b"[]\n",
        b"\xff\n",
        b'{"hello": 1}\n',
        b"x" * (1 << 21),
        b"[" * 99999 + b"\n",
    ):
        with socket.create_connection(("127.0.0.1", run.port)) as stranger, contextlib.suppress(OSError):
            stranger.sendall(content)
            while select.select([stranger], [], [], 5)[0] and stranger.recv(1000):
                pass
    silent = socket.create_connection(("127.0.0.1", run.port))
    go(peers)
    time.sleep(2 * TIMEOUT)
    assert run.thread.is_alive()
    silent.close()


def test_it_listens_at_its_own_address_alone(run):
    with pytest.raises(OSError), socket.create_connection(("127.0.0.2", run.port), timeout=5):
        pass


def test_what_a_process_sleeps_is_no_silence_of_others():
    patience = Patience(limit=10, tick=1)
    assert not any(patience.over(100) for _ in range(4))  # 2 s each
    assert patience.over(100)
    patience.heard()
    assert not any(patience.over(0.5) for _ in range(19)) and patience.over(0.5)


# -- a worker at the other end of a link that is slow, stalled or cut


class FarWorker(Watch):
    """Worker 1 as it is, in a thread, except that it does not end this process: `lost` is what it would write then."""

    lost = None

    def __init__(self, port):
        super().__init__(Role("worker", "127.0.0.1", port - 1, 2, 1, 1), TIMEOUT)
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.thread.start()

    def work(self):
        self.start()
        self.joined()
        self.ready({"step": 0})

    def _end(self, lost):
        self.lost, self._leaving = lost, True


@contextlib.contextmanager
def behind_a_proxy(run, refusals=0):
    """Worker 1 behind a proxy that hangs up so many times at first, the others without: proxy, worker, others."""
    hanging_up = iter(range(refusals))

    def connect():
        if next(hanging_up, None) is not None:
            raise ConnectionRefusedError
        return socket.create_connection(("127.0.0.1", run.port), timeout=10)

    proxy = Proxy(socket.create_server(("127.0.0.1", 0)), connect)
    peers = [run.comes("worker", 0), run.comes("server")]
    far = FarWorker(proxy.port)
    yield proxy, far, peers
    proxy.close()
    far.thread.join(10)
    for each in (far._wire, far._signals, far._waking):
        each.close()


@pytest.fixture
def link(run):
    with behind_a_proxy(run) as link:
        yield link


def begin(link):
    _, far, (first, _) = link
    first.expect("name")
    first.say({"joined": True})
    first.say({"ready": {"step": 0}})
    assert first.expect("go")
    far.thread.join(10)
    assert far._go.is_set()


def test_a_tunnel_is_there_before_the_scheduler(run):
    """It accepts the connection, reaches nobody, and closes it."""
    with behind_a_proxy(run, refusals=5) as link:
        begin(link)
        assert link[1].lost is None


def test_a_slow_link(run, link):
    proxy, far, (first, _) = link
    proxy.delay = TIMEOUT / 10
    begin(link)
    proxy.stall()
    time.sleep(TIMEOUT / 2)
    proxy.go_on()
    time.sleep(1.5 * TIMEOUT)  # all live
    first.say({"end": 0})
    far._send({"end": 0})
    assert far._over.wait(10) and far.lost is None
    assert run.ended() == ""


@pytest.mark.parametrize("fault, expected", [("stall", "not been heard of for 0.5 s"), ("cut", "died")])
def test_a_link_is_lost(run, link, fault, expected):
    proxy, far, peers = link
    begin(link)
    begun = time.monotonic()
    getattr(proxy, fault)()
    for peer in peers:
        lost = peer.expect("lost")
        assert lost.startswith("worker 1 (process ") and lost.endswith(f" has {expected}")
    assert run.ended() == lost and time.monotonic() - begun < (1 if fault == "cut" else 10)
    until = time.monotonic() + 10
    while far.lost is None and time.monotonic() < until:
        time.sleep(TICK)
    assert far.lost.startswith("the scheduler at 127.0.0.1, port ") and far.lost.endswith(f", has {expected}")
