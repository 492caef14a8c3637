"""What the service counts, for Prometheus."""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from muxrec_serving.answering.state import ServingState

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
_ITEMS = (1, 2, 4, 8, 16, 32)


class Metrics:
    """One process's counters; with several workers they are summed over all of them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter("requests", "Requests answered.", "route", "status")
        self.seconds = Histogram(
            "muxrec_request_seconds",
            "Time from the request's head to its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.answers = self._counter("answers", "Neighbour lists by their source.", "source")
        self.swaps = self._counter("swaps", "Bundles taken into service after the first.")
        self.refusals = self._counter("refusals", "Bundles refused.", "reason")
        self.registry_errors = self._counter("registry_errors", "Failed polls of the registry.")
        self.writes = self._counter("writes", "Live writes.", "kind")
        self.encoded = Histogram(
            "muxrec_encode_items",
            "Raw items per run of the tower.",
            buckets=_ITEMS,
            registry=self.registry,
        )
        self.ready = self._gauge("ready", "1 while the service takes requests.")
        self.live_items = self._gauge("live_items", "Live items over the bundle.")
        self.not_encodable = self._gauge(
            "live_items_not_encodable", "Live items that the bundle in service cannot encode."
        )
        self.bundle = self._gauge(
            "bundle_info", "1 for the bundle in service.", "digest", "model", "version", "alias"
        )
        self.loaded = self._gauge("bundle_loaded_timestamp_seconds", "When it was loaded.")

    def show_bundle(self, state: ServingState) -> None:
        """Name the bundle in service, and only that one."""
        self.bundle.clear()
        origin = state.origin
        labels = (state.digest, origin.model or "", origin.version or "", origin.alias or "")
        self.bundle.labels(*labels).set(1)
        self.loaded.set(state.loaded_at)

    def text(self) -> bytes:
        """The exposition, summed over all workers where there are several."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self.registry)
        merged = CollectorRegistry()
        MultiProcessCollector(merged)
        return generate_latest(merged)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"muxrec_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(
            f"muxrec_{name}", text, labels, registry=self.registry, multiprocess_mode="livemax"
        )
