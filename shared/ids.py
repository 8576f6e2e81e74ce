"""Identifiers that are computed, so that doing the same work twice writes the same thing twice."""

from __future__ import annotations

import uuid

_NAMESPACE = uuid.UUID("5f0c6c9e-3d0b-5b0a-9d5e-7a1c0de4b0a7")


def derived_id(*parts: object) -> str:
    """UUIDv5 of the parts: of a result, (service, cause id, kind, subject, ordinal)."""
    return str(uuid.uuid5(_NAMESPACE, "\x1f".join(str(part) for part in parts)))


def murmur2(data: bytes) -> int:
    """Kafka's key hash (32 bit, seed 0x9747b28c), as in org.apache.kafka.common.utils.Utils."""
    length, seed, m = len(data), 0x9747B28C, 0x5BD1E995
    h = seed ^ length
    for start in range(0, length - length % 4, 4):
        k = int.from_bytes(data[start : start + 4], "little") * m & 0xFFFFFFFF
        k = (k ^ (k >> 24)) * m & 0xFFFFFFFF
        h = (h * m & 0xFFFFFFFF) ^ k
    tail = data[length - length % 4 :]
    if tail:
        h = (h ^ int.from_bytes(tail, "little")) * m & 0xFFFFFFFF
    h = (h ^ (h >> 13)) * m & 0xFFFFFFFF
    return h ^ (h >> 15)


def partition_of(key: bytes, partitions: int) -> int:
    """The partition that every Kafka client with the default partitioner gives this key."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions
