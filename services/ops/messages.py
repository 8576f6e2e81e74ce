"""Ops reads revenue, hierarchy, owners and contacts, and writes segments and due touches."""

from shared import topics

READS = (topics.ROUTED["ops"], topics.INTERNAL["ops"])
WRITES = (topics.RESULTS["ops"], topics.INTERNAL["ops"])
