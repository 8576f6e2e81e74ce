"""The image and the compose file hold what this build has, and nothing of a developer's machine."""

from __future__ import annotations

import re
from importlib.metadata import distributions, requires
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from deploy.image_packages import LEFT_OUT, blocks, image_lock
from services.__main__ import NAMES
from tests.support.repository import text_of

COMPOSE: dict[str, Any] = yaml.safe_load(text_of(Path("docker-compose.yml")))
SERVICES: dict[str, Any] = COMPOSE["services"]
LOCK = text_of(Path("requirements.lock"))


def test_every_service_is_composed_with_its_one_command() -> None:
    """A new service: four lines in docker-compose.yml, like its neighbours."""
    composed = {
        name: service["command"][-1] for name, service in SERVICES.items() if "services" in str(service.get("command"))
    }
    assert composed == {name: name for name in NAMES}


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_published_on_this_machine_alone(name: str) -> None:
    assert [port for port in SERVICES[name].get("ports", []) if not port.startswith("127.0.0.1:")] == []


@pytest.mark.parametrize("name", [name for name in SERVICES if name not in ("setup", "cli")])
def test_what_stays_up_is_watched_limited_and_started_again(name: str) -> None:
    service = SERVICES[name]
    assert service["healthcheck"]["test"]
    assert service["restart"] == "unless-stopped"
    assert service["deploy"]["resources"]["limits"]["memory"]


@pytest.mark.parametrize("name", [name for name in SERVICES if name not in ("kafka", "postgres")])
def test_our_own_containers_have_no_rights(name: str) -> None:
    service = SERVICES[name]
    assert service["user"] == "10001:10001"
    assert service["cap_drop"] == ["ALL"]
    assert service["read_only"] is True


def test_data_outlives_containers() -> None:
    kept = {
        volume for service in SERVICES.values() for volume in service.get("volumes", []) if not volume.startswith(".")
    }
    assert {volume.split(":")[0] for volume in kept} == set(COMPOSE["volumes"])
    assert SERVICES["kafka"]["environment"]["KAFKA_LOG_DIRS"] == "/var/lib/kafka/data"


def test_the_image_has_every_package_that_its_packages_need() -> None:
    wanted = {name for name, _ in blocks(image_lock(LOCK))}
    here = {dist.metadata["Name"].lower().replace("_", "-") for dist in distributions()}
    needed = {
        found.name.lower().replace("_", "-")
        for name in wanted & here
        for found in map(Requirement, requires(name) or [])
        if found.marker is None or found.marker.evaluate({"extra": ""})
    }
    assert needed - wanted == set()


def test_what_the_image_leaves_out_is_in_the_lock() -> None:
    assert set(LEFT_OUT) - {name for name, _ in blocks(LOCK)} == set()


def test_every_package_of_the_image_is_pinned_by_hash() -> None:
    assert [
        name for name, block in blocks(image_lock(LOCK)) if not re.search(r"--hash=sha256:[0-9a-f]{64}", block)
    ] == []
