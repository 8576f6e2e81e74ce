"""`up`, `status` and `down` as a user runs them."""

from __future__ import annotations

import json
import socket

from cli.home import Home
from tests.support.stack import Installation, bare_environment, installation, temporary_home


def test_up_status_and_down_as_a_user_runs_them() -> None:
    with installation() as whole:
        found = json.loads(whole.hune("status", "--json").stdout)
        assert all(service["ready"] and service["restarts"] == 0 for service in found["services"])
        assert None not in (found["kafka"]["pid"], found["postgres"]["pid"])
        assert found["in_flight"] == 0
        assert found["clock"] == {"mode": "historical", "at": None}
        assert all(account["balanced"] for account in found["accounting"].values())
        assert "already runs" in whole.hune("up").stdout

        whole.hune("down")
        assert whole.hune("status", check=False).returncode == 1
        assert not whole.home.is_running
        accounts = whole.hune("export", "accounts", "--json")
        assert accounts.stdout == ""
        assert "its database runs for this command alone" in accounts.stderr


def test_a_taken_gateway_port_is_named_and_nothing_is_left_running() -> None:
    with temporary_home() as path, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        whole = Installation(Home(path), bare_environment(path) | {"HUNE_GATEWAY_PORT": port})
        refused = whole.hune("up", check=False)
        assert refused.returncode == 2
        assert f"HUNE_GATEWAY_PORT is {port}" in refused.stderr
        assert not whole.home.is_running
