"""Voice reads what customers say and writes what it is about."""

from shared import topics

READS = (topics.ROUTED["voc"],)
WRITES = (topics.RESULTS["voc"],)
