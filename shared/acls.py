"""What each service may do in Kafka, from what `shared/topics.py` says it reads and writes, and nothing more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, for_code
from aiokafka.protocol.admin import CreateAclsRequest

from shared import topics
from shared.access import refuse_wrong_access
from shared.errors import Misconfigured
from shared.kafka import client_options
from shared.topics import ANYONE

CLI = "cli"
ALLOW, ANY_HOST = 3, "*"
RESOURCES = {"topic": 2, "group": 3, "transactional-id": 5}
PATTERNS = {"literal": 3, "prefixed": 4}
OPERATIONS = {"Read": 3, "Write": 4, "Describe": 8}


@dataclass(frozen=True, slots=True, order=True)
class Acl:
    """One right of one principal; the right to read or write includes the one to describe."""

    service: str
    resource: str
    name: str
    operation: str
    pattern: str = "literal"

    def principal(self, prefix: str) -> str:
        return f"User:{prefix}{self.service}"

    def command(self, prefix: str) -> str:
        """The same for Kafka's own tool."""
        return (
            f"kafka-acls.sh --bootstrap-server $KAFKA --add --allow-principal {self.principal(prefix)} "
            f"--operation {self.operation} --{self.resource} {self.name} --resource-pattern-type {self.pattern}"
        )


def acls() -> list[Acl]:
    return sorted(set(_acls()))


def _acls() -> Iterator[Acl]:
    for topic in topics.ALL:
        for service in topic.writers:
            if service != ANYONE:
                yield Acl(service, "topic", topic.name, "Write")
        for service in topic.readers:
            if service != ANYONE:
                yield Acl(service, "topic", topic.name, "Read")
                yield Acl(service, "group", f"{topics.PREFIX}.{service}", "Read")
        yield Acl(CLI, "topic", topic.name, "Describe")
    yield Acl(CLI, "topic", topics.ALERTS.name, "Read")
    for service in topics.POSITIONS:
        yield Acl(service, "transactional-id", f"{topics.PREFIX}.relay.{service}.", "Write", "prefixed")


async def apply_acls(bootstrap_servers: str, prefix: str) -> int:
    """Give every service its rights, as somebody who may; those that are there stay. Returns how many there are."""
    admin = AIOKafkaAdminClient(**client_options(bootstrap_servers))
    try:
        await admin.start()
        found = acls()
        for acl in found:
            await _add(admin, acl, prefix)
        return len(found)
    except KafkaError:
        await refuse_wrong_access(bootstrap_servers)
        raise
    finally:
        await admin.close()


async def _add(admin: AIOKafkaAdminClient, acl: Acl, prefix: str) -> None:
    request = CreateAclsRequest(
        RESOURCES[acl.resource], acl.name, PATTERNS[acl.pattern], acl.principal(prefix), ANY_HOST,
        OPERATIONS[acl.operation], ALLOW,
    )  # fmt: skip
    answer = await admin._send_request(request)
    for code, message in answer.creation_responses:
        if code:
            raise Misconfigured(
                f"Kafka does not let this user give rights: {message or for_code(code).__name__}; "
                "use one that may alter the cluster, on a broker with an authorizer"
            )
