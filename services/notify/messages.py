"""Notify reads alerts, what words them, and who is to be forgotten; it tells people, and writes no records."""

from shared import topics

READS = (
    topics.ALERTS, topics.STATE_ACCOUNTS, topics.RESULTS["health"], topics.RESULTS["ops"],
    topics.RESULTS["router"], topics.ROUTED["ops"],
)  # fmt: skip
"""The last two for the ids that accounts have in other tools."""
WRITES = ()
