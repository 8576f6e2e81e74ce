"""Kafka: client settings shared by everybody, and the topics of an installation."""

from __future__ import annotations

import asyncio
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from shared import topics
from shared.access import Access, refuse_wrong_access
from shared.errors import Misconfigured

ANSWER_SECONDS = 5
MAX_RECORD_BYTES = 2 * 1024 * 1024
CLIENT_NAME = "hune"


def client_options(bootstrap_servers: str) -> dict[str, Any]:
    """What every client of ours is set to: where Kafka is, and how it is reached."""
    return {"bootstrap_servers": bootstrap_servers, "client_id": CLIENT_NAME, **Access.from_env().options()}


def producer_options(bootstrap_servers: str) -> dict[str, Any]:
    """What every producer of ours is set to; acks=all and idempotence are not aiokafka's defaults."""
    return {
        **client_options(bootstrap_servers),
        "acks": "all",
        "enable_idempotence": True,
        "max_batch_size": 512 * 1024,
        "max_request_size": MAX_RECORD_BYTES,
        "retry_backoff_ms": 10,
    }


def consumer_options(bootstrap_servers: str) -> dict[str, Any]:
    """What every consumer of ours is set to; `earliest` and `read_committed` are not aiokafka's defaults."""
    return {
        **client_options(bootstrap_servers),
        "auto_offset_reset": "earliest",
        "isolation_level": "read_committed",
        "enable_auto_commit": False,
    }


async def answers(bootstrap_servers: str) -> bool:
    """Whether a new client hears from Kafka within a few seconds."""
    client = AIOKafkaClient(**client_options(bootstrap_servers))
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await client.bootstrap()
    except (KafkaError, TimeoutError):
        return False
    else:
        return True
    finally:
        await client.close()


def _config(topic: topics.Topic) -> dict[str, str]:
    config = {"max.message.bytes": str(MAX_RECORD_BYTES), "retention.ms": str(topic.retention_ms)}
    if topic.broker_time:
        config["message.timestamp.type"] = "LogAppendTime"
    if topic.compacted:
        config |= {"cleanup.policy": "compact", "segment.bytes": str(1024 * 1024), "min.cleanable.dirty.ratio": "0.1"}
    return config


async def apply_topics(bootstrap_servers: str, partitions: int, replicas: int = 1) -> list[str]:
    """Create the topics that are missing and return their names.

    Raises Misconfigured when a topic exists with another number of partitions.
    """
    admin = AIOKafkaAdminClient(**client_options(bootstrap_servers))
    try:
        await admin.start()
    except KafkaError:
        await refuse_wrong_access(bootstrap_servers)
        raise
    try:
        existing = set(await admin.list_topics())
        missing = [topic for topic in topics.ALL if topic.name not in existing]
        if missing:
            created = await admin.create_topics(
                [NewTopic(topic.name, partitions, replicas, topic_configs=_config(topic)) for topic in missing]
            )
            for name, code, *_ in created.topic_errors:
                if code and for_code(code) is not TopicAlreadyExistsError:
                    raise Misconfigured(f"topic {name} could not be made: {for_code(code).__name__}")
        for described in await admin.describe_topics([t.name for t in topics.ALL if t.name in existing]):
            if len(described["partitions"]) != partitions:
                raise Misconfigured(
                    f"topic {described['topic']} has {len(described['partitions'])} partitions, this installation "
                    f"{partitions}: set HUNE_PARTITIONS to what the topics have, or replay into a new installation"
                )
        return [topic.name for topic in missing]
    finally:
        await admin.close()
