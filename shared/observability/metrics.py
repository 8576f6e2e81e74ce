"""Prometheus metrics of the runtime; every name begins with `hune_`."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import Counter, Gauge, Histogram

HANDLED = Counter("hune_events_handled", "Records by what became of them", ["service", "outcome"])
BATCH_SECONDS = Histogram(
    "hune_batch_duration_seconds", "From the begin of a batch's transaction to its COMMIT", ["service"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)  # fmt: skip
BATCH_RECORDS = Histogram(
    "hune_batch_records", "Records in a batch", ["service"], buckets=(1, 10, 50, 100, 250, 500, 1000, 2500, 5000)
)
EVENT_AGE = Histogram(
    "hune_event_age_seconds", "From the raw receipt of a batch's first record to this stage's COMMIT", ["service"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300, 3600),
)  # fmt: skip
LAG = Gauge("hune_lag_records", "Records up to the last stable offset that are not applied yet", ["service"])
OUTBOX = Gauge("hune_outbox_records", "Results committed but not yet published", ["service"])
OUTBOX_AGE = Gauge("hune_outbox_age_seconds", "How long the oldest unpublished result waits", ["service"])
OWNED = Gauge("hune_partitions_owned", "Partitions this process owns", ["service"])
QUEUED = Gauge("hune_queued_records", "Records fetched and waiting for their batch", ["service"])
CAS_REJECTIONS = Counter("hune_cas_rejections", "Partitions lost to another owner at a write", ["service"])
RETRIES = Counter("hune_batch_retries", "Batches tried again after a transient fault", ["service"])
TICKED = Counter(
    "hune_accounts_ticked",
    "Accounts that ticks moved past the clock; of the router, parked events released",
    ["service"],
)
REBALANCES = Counter("hune_rebalances", "Assignments received", ["service"])
RELAYED = Counter("hune_results_published", "Results published by the relay", ["service"])
RELAY_RESTARTS = Counter("hune_relay_restarts", "Relays that started over after a producer error", ["service"])
HALTED = Gauge("hune_worker_halted", "1 while nearly everything is unreadable and the worker waits", ["service"])
QUARANTINED = Gauge("hune_quarantined_records", "Records in quarantine", ["service"])
PARKED = Gauge("hune_parked_events", "Events that wait for their account", ["service"])


def count_outcomes(service: str, tally: Mapping[str, int]) -> None:
    """Count what became of a batch's records; ignored ones under one label, whatever the reason."""
    for outcome, n in tally.items():
        if n > 0:
            HANDLED.labels(service, outcome.partition(":")[0]).inc(n)
