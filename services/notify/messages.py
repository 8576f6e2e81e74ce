"""Notify reads alerts and what is needed to word them; what it decides is a message to a person, not a record."""

from shared import topics

READS = (
    topics.ALERTS, topics.STATE_ACCOUNTS, topics.RESULTS["health"], topics.RESULTS["ops"],
    topics.RESULTS["router"], topics.ROUTED["ops"],
)  # fmt: skip
"""The last two for the ids that accounts have in other tools."""
WRITES = ()
