"""What is said of how Kafka is reached, and who may do what there and in the databases."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from services.__main__ import NAMES
from shared import topics
from shared.access import Access
from shared.acls import acls
from shared.db.roles import RUNTIME, statements
from shared.errors import Misconfigured

SASL = {"HUNE_KAFKA_SECURITY_PROTOCOL": "sasl_plaintext", "HUNE_KAFKA_USERNAME": "u", "HUNE_KAFKA_PASSWORD": "p"}


def test_without_variables_kafka_is_reached_in_the_clear() -> None:
    access = Access.from_env({})
    assert access.options() == {"security_protocol": "PLAINTEXT"}
    assert access.faststream() is None


def test_a_user_and_a_password_reach_every_kind_of_client() -> None:
    access = Access.from_env(SASL)
    assert access.options() == {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "u",
        "sasl_plain_password": "p",
    }
    assert type(access.faststream()).__name__ == "SASLScram512"


def test_the_password_may_lie_in_a_file_and_is_never_shown(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("of the file\n")
    access = Access.from_env({**SASL, "HUNE_KAFKA_PASSWORD": "", "HUNE_KAFKA_PASSWORD_FILE": str(file)})
    assert access.password == "of the file"
    assert "of the file" not in repr(access)


@pytest.mark.parametrize(
    ("env", "names"),
    [
        ({"HUNE_KAFKA_SECURITY_PROTOCOL": "TLS"}, "HUNE_KAFKA_SECURITY_PROTOCOL is 'TLS'; it takes PLAINTEXT, SSL"),
        ({**SASL, "HUNE_KAFKA_SASL_MECHANISM": "GSSAPI"}, "HUNE_KAFKA_SASL_MECHANISM is 'GSSAPI'"),
        ({**SASL, "HUNE_KAFKA_USERNAME": ""}, "HUNE_KAFKA_USERNAME is empty"),
        ({**SASL, "HUNE_KAFKA_SECURITY_PROTOCOL": ""}, "of no use with HUNE_KAFKA_SECURITY_PROTOCOL PLAINTEXT"),
        ({**SASL, "HUNE_KAFKA_CAFILE": "ca.pem"}, "it takes SSL or SASL_SSL"),
        ({"HUNE_KAFKA_SECURITY_PROTOCOL": "SSL", "HUNE_KAFKA_CAFILE": "none.pem"}, "HUNE_KAFKA_CAFILE none.pem"),
        ({**SASL, "HUNE_KAFKA_PASSWORD": "", "HUNE_KAFKA_PASSWORD_FILE": "none"}, "HUNE_KAFKA_PASSWORD_FILE none"),
    ],
)
def test_what_does_not_fit_is_named(env: dict[str, str], names: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        Access.from_env(env)
    assert names in str(refused.value)


def rights() -> dict[tuple[str, str], set[str]]:
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    for acl in acls():
        found[acl.service, f"{acl.operation} {acl.resource}"].add(acl.name)
    return found


def test_a_service_may_read_and_write_what_its_topics_say_and_no_more() -> None:
    given = rights()
    for service in NAMES:
        assert given[service, "Read topic"] == {topic.name for topic in topics.ALL if service in topic.readers}
        assert given[service, "Write topic"] == {topic.name for topic in topics.ALL if service in topic.writers}
    assert given["gateway", "Write topic"] == {topics.RAW_EVENTS.name, topics.RAW_REQUESTS.name}
    assert {service for service, _ in given} == {*NAMES, "cli"}


def test_a_service_may_use_its_own_group_and_transactions_alone() -> None:
    given = rights()
    for service in NAMES:
        assert given[service, "Read group"] == {f"cs.{service}"}
    assert given["health", "Write transactional-id"] == {"cs.relay.health."}
    assert given["gateway", "Write transactional-id"] == set()


def test_a_role_gets_no_other_services_schema_and_only_its_own_rows() -> None:
    said = list(statements(NAMES))
    for service in NAMES:
        granted = [line for line in said if line.startswith("grant") and line.endswith(f" to hune_{service}")]
        others = [line for line in granted for other in NAMES if other != service and f"schema {other} " in line]
        assert others == []
    assert {f"alter table hune.{table} enable row level security" for table in RUNTIME} <= set(said)
    assert not [line for line in said if " superuser" in line or "password" in line]
