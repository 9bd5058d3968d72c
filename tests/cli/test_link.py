"""Worker 1 behind a TCP proxy that is its only link to the others: slow, stalled, cut.

MXNet's processes tell each other the addresses at which they listen, and go there by themselves. So the others and
worker 1 are in two network namespaces with no cable between them, and all listen at the loopback address of their own:
where one of them connects to another there, the proxy listens, at the same port. All connections go through it: that of
the watch (port 9092), and those of MXNet's key-value store.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import time

import pytest
from commands import distance
from processes import PATIENT, SAME, far_from_worker_1, launched, roles, rows
from proxy import Proxy

from deeprnn.train import checkpoint

pytestmark = pytest.mark.slow

ROOT, WATCH, SERVER, WORKER = 9091, 9092, 9093, 9094
LONG = ["--epochs", "1000", "--checkpoint-steps", "3"]
NEWNET = 0x40000000  # CLONE_NEWNET, from <sched.h>


@contextlib.contextmanager
def inside(namespace):
    """Where this thread makes sockets: in a network namespace."""
    enter = ctypes.CDLL(None, use_errno=True).setns
    with open("/proc/thread-self/ns/net") as own, open(f"/run/netns/{namespace}") as other:
        assert enter(other.fileno(), NEWNET) == 0, os.strerror(ctypes.get_errno())
        try:
            yield
        finally:
            assert enter(own.fileno(), NEWNET) == 0, os.strerror(ctypes.get_errno())


def proxy(here, there, port):
    """What connects to this port in one namespace comes out in the other."""

    def connect():
        with inside(there):
            return socket.create_connection(("127.0.0.1", port))

    with inside(here):
        return Proxy(socket.create_server(("127.0.0.1", port)), connect)


@pytest.fixture
def link(namespaces):
    """The proxies of each connection of worker 1, by port."""
    here, there = namespaces
    proxies = {port: proxy(there, here, port) for port in (ROOT, WATCH, SERVER)}
    proxies[WORKER] = proxy(here, there, WORKER)
    yield proxies
    for each in proxies.values():
        each.close()


@contextlib.contextmanager
def training(namespaces, text, folder, *options, **program):
    """The processes: scheduler, server, worker 0, worker 1."""
    own = {"server 0": {"PORT": str(SERVER)}, "worker 1": {"PORT": str(WORKER)}}  # ps-lite's variable
    arguments = ["--corpus", text, "--out", folder, *SAME, *options]
    processes = far_from_worker_1(namespaces, roles(ROOT), *arguments, own=own, **program)
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def wait_for_a_checkpoint(processes, folder):
    """Until the training has begun and saved one."""
    while not list(folder.glob("checkpoints/step-*.json")):
        assert all(process.poll() is None for process in processes), ended(processes)
        time.sleep(0.05)


def ended(processes):
    """Exit codes, and what was written to standard error."""
    return [(process.wait(PATIENT), process.stderr.read()) for process in processes]


def test_a_slow_link_changes_nothing(namespaces, link, text, tmp_path):
    """Late at every part, and stalled for 5 seconds in between."""
    options = ["--cell", "gru", "--dropout", "0.3", "--checkpoint-steps", "3"]
    assert launched("--corpus", text, "--out", tmp_path / "direct", *SAME, *options)[0] == 0
    for each in link.values():
        each.delay = 0.02
    with training(namespaces, text, tmp_path / "slow", *options) as processes:
        wait_for_a_checkpoint(processes, tmp_path / "slow")
        for each in link.values():
            each.stall()
        time.sleep(5)
        for each in link.values():
            each.go_on()
        assert ended(processes) == [(0, "")] * 4
    assert distance(tmp_path / "slow", tmp_path / "direct") == 0
    assert rows(tmp_path / "slow") == rows(tmp_path / "direct")


@pytest.mark.parametrize("ports", [(ROOT, WATCH, SERVER, WORKER), (WATCH,)], ids=["all", "the watch alone"])
@pytest.mark.parametrize(
    "fault, expected, within", [("stall", "has not been heard of for 40 s", 80), ("cut", "has died", 20)]
)
def test_a_link_is_lost(namespaces, link, text, tmp_path, ports, fault, expected, within):
    run = tmp_path / "run"
    with training(namespaces, text, run, *LONG, "--timeout", "40") as processes:
        wait_for_a_checkpoint(processes, run)
        begun = time.monotonic()
        for port in ports:
            getattr(link[port], fault)()
        results = ended(processes)
        assert time.monotonic() - begun < within
    assert [code for code, _ in results] == [1] * 4
    for _, error in results[:3]:
        assert error.startswith("deeprnn: error: worker 1 (process ") and error.endswith(f") {expected}\n"), error
    assert results[3][1] == f"deeprnn: error: the scheduler at 127.0.0.1, port {WATCH}, {expected}\n"
    assert not checkpoint.load(run / "checkpoints").damaged


IMPATIENT = """
from deeprnn.cli.main import main
from deeprnn.distributed import hub
hub.STALLED = 1  # not 10
raise SystemExit(main())
"""


@pytest.mark.parametrize("fault", ["stall", "cut"])
def test_the_key_value_store_alone_is_lost(namespaces, link, text, tmp_path, fault):
    """All are there, and nothing goes on."""
    run = tmp_path / "run"
    with training(namespaces, text, run, *LONG, "--timeout", "40", program=("-c", IMPATIENT)) as processes:
        wait_for_a_checkpoint(processes, run)
        for port in (ROOT, SERVER, WORKER):
            getattr(link[port], fault)()
        begun = time.monotonic()
        results = ended(processes)
        assert 35 < time.monotonic() - begun < 80
    expected = "deeprnn: error: no worker has moved for 40 s: they wait for each other, or for a server out of reach\n"
    assert results == [(1, expected)] * 4
    assert not checkpoint.load(run / "checkpoints").damaged


def test_a_signal_crosses_the_link(namespaces, link, text, tmp_path):
    """From worker 1 to all, at the same step."""
    run = tmp_path / "run"
    for each in link.values():
        each.delay = 0.02
    with training(namespaces, text, run, *LONG) as processes:
        wait_for_a_checkpoint(processes, run)
        processes[3].send_signal(signal.SIGTERM)
        results = ended(processes)
    assert [code for code, _ in results] == [0, 0, 143, 143]
    assert results[2][1].startswith("deeprnn: error: stopped by SIGTERM; step ")
