"""Feedback reads what customers answered and which segment they are in, and writes their survey scores."""

from shared import topics

READS = (topics.ROUTED["feedback"], topics.RESULTS["ops"], topics.INTERNAL["feedback"])
WRITES = (topics.RESULTS["feedback"], topics.INTERNAL["feedback"])
