"""Every Kafka client must find an account in the same partition as we do."""

import pytest

from shared.ids import derived_id, murmur2, partition_of


@pytest.mark.parametrize(
    ("key", "hash_"),
    [  # as published in Kafka's own UtilsTest, as signed 32-bit numbers
        ("21", -973932308),
        ("foobar", -790332482),
        ("a-little-bit-long-string", -985981536),
        ("a-little-bit-longer-string", -1486304829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        ("abc", 479470107),
    ],
)
def test_murmur2_is_kafkas(key: str, hash_: int) -> None:
    assert murmur2(key.encode()) == hash_ % 2**32


def test_partition_takes_the_hash_without_its_sign() -> None:
    assert partition_of(b"21", 12) == (-973932308 & 0x7FFFFFFF) % 12


def test_derived_id_is_the_same_for_the_same_parts_alone() -> None:
    assert derived_id("health", "e1", 0) == derived_id("health", "e1", "0")
    assert derived_id("health", "e1", 0) != derived_id("health", "e1", 1)
    assert derived_id("ab", "c") != derived_id("a", "bc")
