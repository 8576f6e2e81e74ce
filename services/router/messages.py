"""The router reads what happened and what is asked, and writes it to the domains it concerns."""

from shared import topics

READS = (topics.RAW_EVENTS, topics.RAW_REQUESTS)
WRITES = (*topics.ROUTED.values(), topics.RESULTS["router"])
