"""Reviews read what happened at the customers' and which segment they are in, and write packs and dates."""

from shared import topics

READS = (topics.ROUTED["qbr"], topics.RESULTS["ops"], topics.INTERNAL["qbr"])
WRITES = (topics.RESULTS["qbr"], topics.INTERNAL["qbr"])
