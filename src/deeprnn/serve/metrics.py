"""What is counted: figures for Prometheus, and a line of the log for each request."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from starlette.requests import Request
from starlette.responses import Response

from .jobs import Job
from .served import Served

__all__ = ["LOG", "Metrics"]

LOG = logging.getLogger("deeprnn.serve")

BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120)


class Metrics:
    """Counts of requests, and figures of the engines.

    Parameters
    ----------
    log_text
        Whether the log has the beginning of what is sent.
    """

    def __init__(self, log_text: bool = False) -> None:
        self._log_text = log_text
        self.registry = CollectorRegistry()
        self._requests = Counter("deeprnn_requests", "Requests answered.", ("path", "status"), registry=self.registry)
        self._seconds = Histogram(
            "deeprnn_request_seconds", "Time of a request.", ("path",), buckets=BUCKETS, registry=self.registry
        )

    def follow(self, job: Job, request: Request, text: str) -> None:
        """Remember a request's job for its line in the log."""
        request.scope.setdefault("deeprnn.jobs", []).append((job, text))

    def answered(self, scope: Any, status: int, begun: float, known: bool) -> None:
        """Count a request, and log it in a line."""
        seconds = time.perf_counter() - begun
        path = scope["path"] if known else "other"
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)
        jobs = scope.get("deeprnn.jobs", [])
        line = f"{scope['method']} {path} {status} {seconds * 1e3:.1f} ms"
        if jobs:
            line += f" {sum(job.written for job, _ in jobs)} symbols"
            failure = next((job.error for job, _ in jobs if job.error), "")
            line += f" ({failure})" if failure else ""
        if scope.get("client"):
            line += f" from {scope['client'][0]}"
        if self._log_text:
            line += "".join(f" {text[:200]!r}" for _, text in jobs)
        LOG.info("%s", line)

    def answer(self, models: Sequence[Served]) -> Response:
        """All figures in Prometheus' text form."""
        registry = CollectorRegistry()
        registry.register(Engines(models))
        return Response(
            generate_latest(self.registry) + generate_latest(registry),
            media_type="text/plain; version=0.0.4; charset=utf-8",
        )


class Engines:
    """The figures of the engines, read where they are asked for."""

    def __init__(self, models: Sequence[Served]) -> None:
        self._models = models

    def collect(self) -> Iterable[Metric]:
        """The families of figures, as prometheus_client asks for them."""
        for name, text, kind in (
            ("symbols", "Symbols written.", CounterMetricFamily),
            ("steps", "Steps of all texts.", CounterMetricFamily),
            ("read", "Symbols of prefixes and scored texts read.", CounterMetricFamily),
            ("running", "Slots taken.", GaugeMetricFamily),
            ("waiting", "Requests waiting for slots.", GaugeMetricFamily),
            ("ready", "Whether it serves.", GaugeMetricFamily),
        ):
            family = kind(f"deeprnn_{name}", text, labels=("model",))
            for each in self._models:
                family.add_metric((each.name,), float(getattr(each.engine, name)))
            yield family
