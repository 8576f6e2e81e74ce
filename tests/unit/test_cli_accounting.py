"""The accounting adds up, and says when it does not."""

from datetime import UTC, datetime

from cli.accounting import account, accounts_of, clock_of
from cli.flight import Flight, PartitionState, State

NOW = datetime(2025, 1, 1, tzinfo=UTC)


def a_partition(
    service: str = "health", partition: int = 0, clock: datetime | None = None, live: bool = False, **counts: int
) -> PartitionState:
    return PartitionState(service, partition, {}, 0, 0, clock, live, counts)


def test_outcomes_are_summed_over_partitions_router_first() -> None:
    accounts = accounts_of(
        [
            a_partition("health", 0, read=5, applied=4, duplicate=1),
            a_partition("health", 1, read=2, applied=2),
            a_partition("router", 0, read=7, routed=7),
        ]
    )
    assert list(accounts) == ["router", "health"]
    assert accounts["health"] == {
        "read": 7, "applied": 6, "ignored": 0, "duplicate": 1, "quarantined": 0, "suppressed": 0, "balanced": True,
    }  # fmt: skip


def test_reasons_stand_beside_their_outcome() -> None:
    health = account("health", {"read": 6, "applied": 1, "ignored:not mine": 2, "ignored:old": 3})
    assert health["ignored"] == 5
    assert health["balanced"]
    assert health["ignored_reasons"] == {"not mine": 2, "old": 3}


def test_what_does_not_add_up_is_not_balanced() -> None:
    assert not account("router", {"read": 3, "routed": 2})["balanced"]
    assert account("router", {"read": 3, "routed": 2, "something new": 1})["balanced"]


def test_clock_is_live_once_any_partition_is() -> None:
    partitions = (a_partition(clock=NOW), a_partition(partition=1, live=True))
    assert clock_of(State(partitions, {}, {}), NOW)["mode"] == "live"


def test_clock_of_history_is_the_latest_run_and_null_before() -> None:
    assert clock_of(State((a_partition(),), {}, {}), NOW) == {"mode": "historical", "at": None}
    later = datetime(2024, 5, 1, tzinfo=UTC)
    state = State((a_partition(clock=later), a_partition(partition=1)), {}, {})
    assert clock_of(state, NOW) == {"mode": "historical", "at": "2024-05-01T00:00:00Z"}


def test_flight_counts_all_kinds_and_names_them() -> None:
    flying = Flight(
        unread={("health", "cs.routed.health.v1"): 3, ("router", "cs.raw.events.v1"): 1},
        unpublished={"voc": 2},
        redrives={"qbr": 1},
        due={"health": 4},
        unstable={"cs.alerts.v1": 5},
    )
    assert flying.total == 16
    assert flying.lag(["health", "ops", "router"]) == {"health": 3, "ops": 0, "router": 1}
    assert "health has 3 records of cs.routed.health.v1 to read" in flying.lines()
    assert len(flying.lines()) == 6
