"""Figures of the service for Prometheus."""

from __future__ import annotations

import os

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

SHARED = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that tells the client library where several processes add up their figures."""

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Metrics:
    """All figures of one service. With several workers those of all are told by each."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        """Everything is 0, and the store answers."""
        registry = CollectorRegistry()
        self._registry = registry
        self.requests = Counter(
            "foretaste_requests", "Requests answered.", ["route", "status"], registry=registry
        )
        self.seconds = Histogram(
            "foretaste_request_seconds",
            "From the first byte of a request to its answer.",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self.batch = Histogram(
            "foretaste_batch_size",
            "Requests that were worked on together.",
            ["work"],
            buckets=SIZES,
            registry=registry,
        )
        self.lists = Counter(
            "foretaste_lists", "Lists by what they were made from.", ["source"], registry=registry
        )
        self.degraded = Counter(
            "foretaste_degraded_lists", "Lists made without the store.", registry=registry
        )
        self.store_errors = Counter(
            "foretaste_store_errors", "Calls that the store did not do.", registry=registry
        )
        self.shed = Counter(
            "foretaste_shed_requests",
            "Requests answered 429 or too late.",
            ["why"],
            registry=registry,
        )
        self.events = Counter("foretaste_events", "Events logged.", registry=registry)
        self.state_bytes = Counter(
            "foretaste_state_read_bytes", "Bytes of states that were read.", registry=registry
        )
        self.states_dropped = Counter(
            "foretaste_states_dropped", "States not kept, as too many waited.", registry=registry
        )
        self.reloads = Counter(
            "foretaste_reloads", "Runs loaded again.", ["run"], registry=registry
        )
        self.store_up = Gauge(
            "foretaste_store_up",
            "Whether the store answers.",
            registry=registry,
            multiprocess_mode="livemin",
        )
        self.store_takes = Gauge(
            "foretaste_store_takes_events",
            "Whether the store took the last events; 0 when it is full, say.",
            registry=registry,
            multiprocess_mode="livemin",
        )
        self.waiting = Gauge(
            "foretaste_waiting_requests",
            "Requests that wait or are worked on.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.store_up.set(1)  # unless more is known
        self.store_takes.set(1)

    def close(self) -> None:
        """Leave no figure of a process that has ended among those of its siblings."""
        if SHARED in os.environ:
            mark_process_dead(os.getpid())

    def text(self) -> bytes:
        """In the text format of Prometheus."""
        if SHARED not in os.environ:
            return generate_latest(self._registry)
        shared = CollectorRegistry()
        MultiProcessCollector(shared)
        return generate_latest(shared)
