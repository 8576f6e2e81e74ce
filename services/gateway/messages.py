"""The gateway writes what the customer's tools send, and reads the answers to requests."""

from shared import topics

READS = tuple(topics.RESULTS.values())
WRITES = (topics.RAW_EVENTS, topics.RAW_REQUESTS)
