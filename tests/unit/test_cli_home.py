import json
import os
from pathlib import Path

import pytest

from cli.home import Home, RunState, ServiceState, StoreState, demo_home, find_home, main_home, open_stores
from cli.supervisor import Backoff
from shared.errors import Misconfigured


def a_state(**changes: object) -> RunState:
    known: dict[str, object] = {
        "phase": "serving",
        "supervisor": 0,
        "started_at": "2026-01-01T00:00:00Z",
        "kafka": StoreState("127.0.0.1:9092", 7),
        "postgres": StoreState("postgresql://hune@127.0.0.1:5432/hune"),
        "database_urls": ("postgresql://hune@127.0.0.1:5432/hune",),
        "services": (ServiceState("router", 8, 1, True, 20001),),
    }
    return RunState(**(known | changes))  # type: ignore[arg-type]


def test_a_state_reads_back_as_it_was_written(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.write_state(a_state())
    assert home.state() == a_state()
    assert home.state_file.stat().st_mode & 0o077 == 0
    assert [path.name for path in home.state_file.parent.iterdir()] == ["state.json"]


def test_the_home_is_hune_home_else_the_users_data_folder(tmp_path: Path) -> None:
    assert main_home({"HUNE_HOME": str(tmp_path)}).path == tmp_path
    assert main_home({"XDG_DATA_HOME": str(tmp_path)}).path == tmp_path / "hune"
    assert main_home({}).path == Path.home() / ".local/share/hune"
    assert demo_home({"HUNE_HOME": str(tmp_path)}).path == tmp_path / "demo"


def test_a_stopped_home_is_found_by_its_last_use(tmp_path: Path) -> None:
    env = {"HUNE_HOME": str(tmp_path)}
    with pytest.raises(Misconfigured, match="hune up"):
        find_home(env)
    main_home(env).write_state(a_state())
    demo_home(env).write_state(a_state())
    os.utime(main_home(env).state_file, (1, 1))
    assert find_home(env) == demo_home(env)


async def test_given_addresses_win_over_any_home(tmp_path: Path) -> None:
    env = {
        "HUNE_HOME": str(tmp_path),
        "HUNE_DATABASE_URL": "postgresql://control",
        "HUNE_DATABASE_URLS": "postgresql://a, postgresql://b",
        "HUNE_KAFKA_BOOTSTRAP_SERVERS": "kafka:9092",
    }
    async with open_stores(need_kafka=True, env=env) as stores:
        assert stores.bootstrap_servers == "kafka:9092"
        assert stores.database_url == "postgresql://control"
        assert stores.database_urls == ("postgresql://a", "postgresql://b")


async def test_kafka_of_a_stopped_home_is_asked_for_in_one_sentence(tmp_path: Path) -> None:
    env = {"HUNE_HOME": str(tmp_path)}
    main_home(env).write_state(a_state(phase="stopped"))
    with pytest.raises(Misconfigured, match=r"not running .*`hune up`"):
        async with open_stores(need_kafka=True, env=env):
            pass


def test_restarts_wait_twice_as_long_each_time_until_a_long_life() -> None:
    waits = []
    backoff = Backoff()
    for _ in range(7):
        backoff = backoff.after_death(lived=1.0)
        waits.append(backoff.delay)
    assert waits == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert backoff.after_death(lived=31.0).delay == 0.2


def test_the_pinned_jars_are_complete_and_hashed() -> None:
    jars = json.loads((Path(__file__).parents[2] / "devstack/kafka-jars.json").read_text())
    assert len({(jar["group"], jar["artifact"]) for jar in jars}) == len(jars)
    assert all(len(jar["sha256"]) == 64 for jar in jars)
    assert {"kafka_2.13", "kafka-server", "kafka-clients"} <= {jar["artifact"] for jar in jars}
