"""Feedback reads what customers answered and which segment they are in, and writes their survey scores."""

from shared import topics

READS = (topics.ROUTED["feedback"], topics.RESULTS["ops"])
WRITES = (topics.RESULTS["feedback"],)
