"""Reviews read what happened at the customers' and which segment they are in, and write packs and dates."""

from shared import topics

READS = (topics.ROUTED["qbr"], topics.RESULTS["ops"])
WRITES = (topics.RESULTS["qbr"],)
