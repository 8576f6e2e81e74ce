"""Metrics of deliveries."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

ATTEMPTS = Counter("hune_notify_attempts", "Calls to a sink by what came of them", ["sink", "outcome"])
LOOKED_UP = Counter("hune_notify_looked_up", "Messages of unclear outcome that were looked up", ["sink", "outcome"])
SECONDS = Histogram(
    "hune_notify_seconds", "From the ledger's row until the message was posted, of those sent on their own", ["sink"],
    buckets=(0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 30, 60, 300, 3600),
)  # fmt: skip
DISABLED = Gauge("hune_notify_disabled", "1: nothing is sent there until it is redriven", ["destination"])
WRITES = Gauge("hune_notify_writes", "Accounts by how far their score is written back", ["destination", "state"])
OUTREACH = Gauge("hune_notify_outreach", "Messages to people at customers", ["destination", "state"])
WAITING = Gauge("hune_notify_waiting", "Deliveries that are neither sent nor given up", ["state"])
