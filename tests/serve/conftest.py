"""A small model, as a folder and in memory, and a service of it in a process of its own."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import mxnet as mx
import pytest

import deeprnn
from deeprnn import LanguageModel, export
from deeprnn.data.text import vocabulary

TOKENS = ["<unk>", *"abcdefghijklmnopqrstuvwxyz \n"]
SOURCES = str(Path(deeprnn.__file__).parents[1])


def network(cell="rnn", units=24, seed=0):
    """A language model that has preferences, but has learnt nothing."""
    mx.random.seed(seed)
    net = LanguageModel(len(TOKENS), units, 2, cell=cell, embedding_size=8)
    net.initialize()
    for name, parameter in net.collect_params().items():
        if "h2h" not in name:
            parameter.set_data(mx.nd.random.normal(0, 0.5, parameter.shape))
    net.hybridize(static_alloc=True, static_shape=True)
    return net


@pytest.fixture(scope="session")
def vocab():
    return vocabulary(TOKENS)


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Two exported models."""
    home = tmp_path_factory.mktemp("models")
    for name, cell in (("ducks", "rnn"), ("geese", "gru")):
        export.to_torch(network(cell), home / name, vocabulary=TOKENS)
    return [home / "ducks", home / "geese"]


class Service:
    """`deeprnn serve` in a process of its own."""

    def __init__(self, *arguments):
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "deeprnn", "serve", *map(str, arguments), "--port", "0"],
            env={**os.environ, "PYTHONPATH": SOURCES, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        self.log = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        line = self.process.stdout.readline()
        assert line.startswith("serving "), "".join(self.log)
        self.port = int(line.rsplit(":", 1)[1].strip(" /\n"))
        until = time.monotonic() + 60
        while self.get("/ready")[0] != 200:
            assert time.monotonic() < until
            time.sleep(0.02)

    def _read(self):
        for line in self.process.stderr:
            self.log.append(line)

    def connection(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def request(self, method, path, body=None, **headers):
        """Status, headers and body of an answer."""
        connection = self.connection()
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, dict(answer.getheaders()), content

    def get(self, path, **headers):
        status, _, content = self.request("GET", path, **headers)
        return status, json.loads(content)

    def post(self, path, fields, **headers):
        """Status and document of an answer."""
        body = fields if isinstance(fields, (bytes, str)) else json.dumps(fields)
        status, _, content = self.request("POST", path, body, **{"Content-Type": "application/json", **headers})
        return status, json.loads(content)

    def stream(self, path="/v1/generate", **fields):
        """The lines of an answer, as they come."""
        connection = self.connection()
        body = json.dumps({**fields, "stream": True})
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        assert answer.status == 200
        yield from answer
        connection.close()

    def figure(self, name):
        """The sum over all models of a figure of /metrics."""
        text = self.request("GET", "/metrics")[2].decode()
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"deeprnn_{name}{{"))

    def idle(self, within=1.0):
        """Whether all slots are free before so many seconds have passed."""
        until = time.monotonic() + within
        while time.monotonic() < until:
            if self.figure("running") == self.figure("waiting") == 0:
                return True
            time.sleep(0.02)
        return False

    def stop(self):
        """Its exit code, after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(30)
        finally:
            self.process.kill()
            self._reader.join()
            self.process.stdout.close()
            self.process.stderr.close()


@pytest.fixture(scope="session")
def service(folders):
    pytest.importorskip("fastapi")
    running = Service(*folders, "--max-samples", "4", "--max-length", "50000")
    yield running
    assert running.stop() == 0
