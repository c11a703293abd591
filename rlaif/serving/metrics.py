"""What Prometheus is told of the endpoint: counts and times, and no word of a prompt, a response or a key."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from rlaif.serving.queue import RatingQueue

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 180.0)
"""Seconds; a rating takes milliseconds from the cache and up to the deadline with a slow judge."""


class Metrics:
    """The figures of one server."""

    def __init__(self, queue: RatingQueue) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_QueueCollector(queue))
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "rlaif_requests", "Requests answered, by path and status.", ("path", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "rlaif_request_seconds",
            "Seconds from a request's headers to its answer.",
            ("path",),
            registry=self._registry,
            buckets=_BUCKETS,
        )

    def observe(self, path: str, status: int, seconds: float) -> None:
        """A request was answered; `path` is one of the server's own or "other"."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def render(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self._registry)


class _QueueCollector(Collector):
    def __init__(self, queue: RatingQueue) -> None:
        self._queue = queue

    def collect(self) -> Iterable[Metric]:
        counts = self._queue.counts
        for name, value, meaning in (
            ("rlaif_items_rated", counts.rated, "Items that the judge rated."),
            ("rlaif_cache_hits", counts.cache_hits, "Items answered from memory."),
            ("rlaif_items_shared", counts.shared, "Items answered together with an equal one in flight."),
            ("rlaif_items_cancelled", counts.cancelled, "Items given up because nobody waited for them any more."),
        ):
            yield CounterMetricFamily(name, meaning, value=value)
        failures = CounterMetricFamily("rlaif_failures", "Items without a rating, by error.", labels=["error"])
        for error, count in counts.failures.items():
            failures.add_metric([error], count)
        yield failures
        yield GaugeMetricFamily("rlaif_items_in_flight", "Items that the judge is asked about.", self._queue.in_flight)
        yield GaugeMetricFamily("rlaif_queue_depth", "Items that wait for the judge.", self._queue.depth)
        yield GaugeMetricFamily("rlaif_tasks", "Tasks on the server's event loop.", len(asyncio.all_tasks()))
