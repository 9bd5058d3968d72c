"""`deeprnn serve` in a process of its own, and a client of it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Optional, Union

import deeprnn

__all__ = ["Service"]

SOURCES = str(Path(deeprnn.__file__).parents[1])
START = 120.0
"""Seconds in which a service has to be ready."""


class Service:
    """A service of some models on a free port; use it in a with statement, or `stop` it.

    Parameters
    ----------
    *arguments
        Of ``deeprnn serve``: models and flags.
    threads
        For each model.

    Attributes
    ----------
    port
    process
    log : list of str
        The lines of its log so far.
    """

    def __init__(self, *arguments: object, threads: int = 1) -> None:
        paths = [SOURCES, *filter(None, [os.environ.get("PYTHONPATH")])]
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "deeprnn", "serve", *map(str, arguments), "--port", "0"],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": str(threads)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout and self.process.stderr
        self._streams = self.process.stdout, self.process.stderr
        self.log: list[str] = []
        self._reader = threading.Thread(target=lambda: self.log.extend(iter(self._streams[1].readline, "")))
        self._reader.start()
        line = self._streams[0].readline()
        if not line.startswith("serving "):
            self.stop()
            raise RuntimeError("".join(self.log) or "the service has not begun")
        self.port = int(line.rsplit(":", 1)[1].strip(" /\n"))
        until = time.monotonic() + START
        while self.get("/ready")[0] != 200:
            if time.monotonic() > until:
                self.stop()
                raise RuntimeError("the service is not ready")
            time.sleep(0.02)

    def __enter__(self) -> Service:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.stop()

    def stop(self, within: float = 60.0) -> int:
        """Its exit code, after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(within)
        finally:
            self.process.kill()
            self._reader.join()
            for stream in self._streams:
                stream.close()

    def request(
        self, method: str, path: str, body: Union[bytes, str, None] = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> tuple[int, Any]:
        """Status and document of an answer."""
        status, _, content = self.request("GET", path, **headers)
        return status, json.loads(content)

    def post(self, path: str, fields: Any, **headers: str) -> tuple[int, Any]:
        """Status and document of the answer to some fields, or to a body as it is."""
        body = fields if isinstance(fields, (bytes, str)) else json.dumps(fields)
        status, _, content = self.request("POST", path, body, **{"Content-Type": "application/json", **headers})
        return status, json.loads(content)

    def stream(self, path: str = "/v1/generate", **fields: Any) -> Iterator[bytes]:
        """The lines of an answer, as they come."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            body = json.dumps({**fields, "stream": True})
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            if answer.status != 200:
                raise RuntimeError(f"status {answer.status}: {answer.read().decode()}")
            yield from answer
        finally:
            connection.close()

    def figure(self, name: str) -> float:
        """The sum over all models of a figure of /metrics."""
        text = self.request("GET", "/metrics")[2].decode()
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"deeprnn_{name}{{"))

    def idle(self, within: float = 1.0) -> bool:
        """Whether all slots are free before so many seconds have passed."""
        until = time.monotonic() + within
        while time.monotonic() < until:
            if self.figure("running") == self.figure("waiting") == 0:
                return True
            time.sleep(0.02)
        return False

    def megabytes(self) -> float:
        """Its memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def cpu_seconds(self) -> float:
        """Time that it has computed."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
