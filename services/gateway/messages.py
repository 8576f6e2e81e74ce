"""The gateway writes what the customer's tools send, and reads the answers to requests and the state of accounts."""

from shared import topics

READS = (*topics.RESULTS.values(), topics.STATE_ACCOUNTS)
WRITES = (topics.RAW_EVENTS, topics.RAW_REQUESTS)
