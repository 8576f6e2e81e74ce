"""Health reads what happened at the customers' and writes how they are doing."""

from shared import topics

READS = (topics.ROUTED["health"], topics.RESULTS["ops"], topics.RESULTS["voc"], topics.INTERNAL["health"])
WRITES = (topics.RESULTS["health"], topics.ALERTS, topics.STATE_ACCOUNTS, topics.INTERNAL["health"])
