"""Long trials of `deeprnn serve`: bad requests, clients that vanish, a soak.

    python -m tools.service_trials bad MODEL [--requests 10000]
    python -m tools.service_trials vanish MODEL [--requests 1000]
    python -m tools.service_trials soak MODEL [--minutes 30]

Beside each of them good requests go on, whose texts must be what they were before. Each ends with one JSON object: what
was sent, what was answered, the service's memory before, in the middle and after. Exit code 1 if anything was not as it
should be.
"""

from __future__ import annotations

import json
import random
import socket
import struct
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from typing import Any, Callable

from .arguments import Parser
from .service import Service

__all__ = ["bad", "soak", "vanish"]

FIELDS = (
    "prefix",
    "length",
    "temperature",
    "top_k",
    "top_p",
    "repetition_penalty",
    "seed",
    "samples",
    "stop",
    "stream",
)
VALUES: tuple[Any, ...] = (None, True, -1, 0, 1e308, -1e308, 10**30, 0.5, "", "x", "\ud800", [], [1], {}, {"a": 1})
GROWTH = 40.0
"""Megabytes by which the memory may grow after the first third of a trial."""


def post(body: bytes, path: str = "/v1/generate", length: Any = None) -> bytes:
    """A request as bytes."""
    size = len(body) if length is None else length
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n\r\n"
    )
    return head.encode() + body


def wrong(chance: random.Random) -> tuple[str, bytes, bool]:
    """A bad request: its kind, its bytes, and whether the sending side is closed then."""
    kind = chance.choice(("json", "types", "huge", "surrogates", "head", "half", "slow", "bytes", "deep", "path"))
    good = json.dumps({"prefix": "a", "length": 5}).encode()
    if kind == "json":
        cut = bytearray(good)
        cut[chance.randrange(len(cut))] = chance.randrange(256)
        return kind, post(bytes(cut[: chance.randrange(len(cut))])), False
    if kind == "types":
        fields = {name: chance.choice(VALUES) for name in chance.sample(FIELDS, 3)}
        return kind, post(json.dumps({**fields, "length": chance.choice(VALUES)}).encode()), False
    if kind == "huge":
        number = "9" * chance.choice((20, 400, 5000)) + chance.choice(("", "e999", ".5"))
        return kind, post(f'{{"{chance.choice(FIELDS)}": {number}}}'.encode()), False
    if kind == "surrogates":
        return kind, post(b'{"prefix": "\\ud800' + chance.choice((b"", b"\\ud800", b"a")) + b'"}'), False
    if kind == "head":
        return (
            kind,
            b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"X-A: " + b"a" * chance.choice((9, 70_000)),
            False,
        )
    if kind == "half":
        return kind, post(good[: chance.randrange(len(good))], length=len(good)), True
    if kind == "slow":
        return kind, post(good[:5], length=len(good)), False
    if kind == "bytes":
        return kind, bytes(chance.randrange(256) for _ in range(200)) + b"\r\n\r\n", False
    if kind == "deep":
        return kind, post(chance.choice((b"[", b'{"a":')) * chance.choice((50, 100_000))), False
    path = chance.choice(("/v1/none", "/%00", "/../etc", "/v1/score", "/v1/generate/"))
    return kind, post(good, path), False


def answer_to(service: Service, data: bytes, half: bool, patience: float) -> str:
    """The status that is answered to some bytes, or why there is none."""
    try:
        with socket.create_connection(("127.0.0.1", service.port), timeout=patience) as sock:
            with suppress(ConnectionError):  # it may have answered before all has been sent
                sock.sendall(data)
                if half:
                    sock.shutdown(socket.SHUT_WR)
            first = sock.recv(1000)
            return first.split()[1].decode() if first.startswith(b"HTTP/1.1 ") else "closed"
    except socket.timeout:
        return "left waiting"
    except OSError:
        return "closed"


class Beside:
    """Good requests that go on beside a trial, in threads of their own; use it in a with statement."""

    def __init__(self, service: Service, threads: int = 2) -> None:
        self.service, self.right, self.wrong = service, 0, []  # type: Service, int, list[str]
        self._expected = {seed: self._text(seed) for seed in range(8)}
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(i,)) for i in range(threads)]

    def _text(self, seed: int) -> Any:
        status, answer = self.service.post("/v1/generate", {"length": 60, "seed": seed})
        return answer["texts"] if status == 200 else answer

    def _work(self, number: int) -> None:
        chance = random.Random(number)
        while not self._ended.is_set():
            seed = chance.randrange(8)
            try:
                text = self._text(seed)
            except Exception as error:  # whatever it is, it counts
                text = repr(error)
            if text == self._expected[seed]:
                self.right += 1
            else:
                self.wrong.append(str(text)[:200])
            time.sleep(0.02)

    def __enter__(self) -> Beside:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()


def each(
    count: int, threads: int, work: Callable[[random.Random], str], progress: Callable[[int], None]
) -> Counter[str]:
    """Do something so many times, in some threads; how often it ended how."""
    found: Counter[str] = Counter()
    todo, lock = iter(range(count)), threading.Lock()

    def run(number: int) -> None:
        chance = random.Random(number)
        while True:
            with lock:
                i = next(todo, None)
                if i is None:
                    return
                progress(i)
            ended = work(chance)
            with lock:
                found[ended] += 1

    workers = [threading.Thread(target=run, args=(i,)) for i in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return found


def trial(service: Service, count: int, work: Callable[[random.Random], str], threads: int) -> dict[str, Any]:
    """Some thousand times `work`, with good requests beside."""
    memory: list[float] = []

    def progress(i: int) -> None:
        if i % max(count // 12, 1) == 0:
            memory.append(round(service.megabytes(), 1))
            print(f"{i:,} of {count:,}, {memory[-1]} MB", file=sys.stderr, flush=True)

    with Beside(service) as beside:
        found = each(count, threads, work, progress)
    free = service.idle(1.0)
    memory.append(round(service.megabytes(), 1))
    return {
        "requests": count,
        "answers": dict(sorted(found.items())),
        "good_beside": beside.right,
        "harmed": beside.wrong[:10],
        "slots_free_within_a_second": free,
        "megabytes": memory,
        "ready": service.get("/ready")[0] == 200,
        "memory_bounded": memory[-1] - memory[len(memory) // 3] < GROWTH,
    }


def bad(service: Service, count: int) -> dict[str, Any]:
    """Requests that are wrong in many ways."""

    def work(chance: random.Random) -> str:
        kind, data, half = wrong(chance)
        return f"{kind} {answer_to(service, data, half, 0.2 if kind in ('slow', 'head') else 20)}"

    found = trial(service, count, work, threads=16)
    found["right"] = not any(" 5" in answer for answer in found["answers"])
    return found


def vanish(service: Service, count: int) -> dict[str, Any]:
    """Clients that vanish in the middle of a stream."""
    request = post(json.dumps({"length": 1_000_000, "stream": True}).encode())

    def work(chance: random.Random) -> str:
        try:
            with socket.create_connection(("127.0.0.1", service.port), timeout=60) as sock:
                sock.sendall(request)
                first = sock.recv(chance.choice((100, 2_000)))
                if chance.random() < 0.5:  # a reset instead of an end
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return first.split()[1].decode() if first else "closed"
        except OSError as error:
            return type(error).__name__

    found = trial(service, count, work, threads=24)
    found["right"] = set(found["answers"]) <= {"200", "429"}
    return found


def soak(service: Service, minutes: float) -> dict[str, Any]:
    """A mixed load for so long; every request that is accepted has to be answered exactly once."""
    end = time.monotonic() + minutes * 60
    vanished = post(json.dumps({"length": 1_000_000, "stream": True}).encode())

    def work(chance: random.Random) -> str:
        what = chance.choice(("whole", "stream", "stream", "score", "completion", "vanish", "bad"))
        fields: dict[str, Any] = {"length": chance.randrange(1, 400), "samples": chance.randrange(1, 4)}
        if what == "vanish":
            answer_to(service, vanished, False, 20)
            return what
        if what == "bad":
            answer_to(service, wrong(chance)[1], False, 0.2)
            return what
        try:
            if what == "stream":
                lines = [json.loads(line) for line in service.stream(**fields)]
                made = sum(len(line.get("text", "")) for line in lines)
                last = {"done": True, "symbols": fields["length"] * fields["samples"]}
                once = lines[-1] == last and sum("done" in line for line in lines) == 1 and made == last["symbols"]
                return "stream" if once else f"stream broken: {str(lines[-1])[:100]}"
            if what == "score":
                status, _ = service.post("/v1/score", {"text": "a " * chance.randrange(2, 2000)})
            elif what == "whole":
                status, _ = service.post("/v1/generate", fields)
            else:
                status, _ = service.post("/v1/completions", {"prompt": "a", "max_tokens": fields["length"]})
            return what if status == 200 else f"{what} {status}"
        except (OSError, RuntimeError, ValueError) as error:
            return f"{what}: {type(error).__name__}: {error}"[:120]

    found: Counter[str] = Counter()
    memory, count = [], 0
    with Beside(service) as beside:
        while time.monotonic() < end:
            found += each(200, 8, work, lambda _: None)
            count += 200
            memory.append(round(service.megabytes(), 1))
            left = max(end - time.monotonic(), 0) / 60
            print(f"{count:,} requests, {memory[-1]} MB, {left:.1f} minutes left", file=sys.stderr, flush=True)
    right = set(found) <= {"whole", "stream", "score", "completion", "vanish", "bad"}
    return {
        "minutes": minutes,
        "requests": count,
        "answers": dict(sorted(found.items())),
        "good_beside": beside.right,
        "harmed": beside.wrong[:10],
        "slots_free_within_a_second": service.idle(1.0),
        "megabytes": memory[:: max(len(memory) // 30, 1)],
        "ready": service.get("/ready")[0] == 200,
        "memory_bounded": memory[-1] - memory[len(memory) // 3] < GROWTH,
        "right": right,
    }


def main() -> int:
    """Run a trial, and print what was found."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("trial", choices=("bad", "vanish", "soak"), help="Which one.")
    parser.add_argument(
        "model", metavar="MODEL", help="Folder of a run, or exported folder; it has to know the letter a."
    )
    parser.add_argument("--requests", type=int, metavar="N", help="Of bad (10,000) or vanish (1,000).")
    parser.add_argument("--minutes", type=float, default=30.0, metavar="X", help="Of a soak.")
    args = parser.parse_args()

    def work() -> int:
        with Service(args.model, "--max-length", "1000000", "--max-seconds", "600") as service:
            if args.trial == "bad":
                found = bad(service, args.requests or 10_000)
            elif args.trial == "vanish":
                found = vanish(service, args.requests or 1_000)
            else:
                found = soak(service, args.minutes)
            found["exit_code"] = service.stop()
        print(json.dumps(found, indent=1))
        whole = all(found[name] for name in ("right", "ready", "memory_bounded", "slots_free_within_a_second"))
        return 0 if whole and not found["harmed"] and found["exit_code"] == 0 else 1

    return parser.call(work)


if __name__ == "__main__":
    raise SystemExit(main())
