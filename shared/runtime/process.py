"""`python -m services NAME`: the worker with its probes, until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import asyncpg
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError
from faststream.asgi import AsgiFastStream, AsgiResponse
from faststream.asgi.types import ASGIApp, Receive, Scope, Send
from prometheus_client import make_asgi_app

from shared.access import refuse_wrong_access
from shared.kafka import client_options
from shared.observability import logs
from shared.runtime.api import Worker
from shared.runtime.service import Runtime
from shared.settings import Settings

log = logging.getLogger(__name__)


def serve(worker: Worker, settings: Settings) -> None:
    """Run the worker in this process.

    Raises Misconfigured when it must not start.
    """
    logs.configure()
    if settings.traces:
        from shared.runtime import tracing

        tracing.start(worker.name)
    asyncio.run(_serve(worker, settings))


async def _serve(worker: Worker, settings: Settings) -> None:
    runtime = Runtime(worker, settings)
    await _until_kafka_answers(settings.kafka_bootstrap_servers)
    await _until_stores_answer(runtime)
    app = AsgiFastStream(
        runtime.broker,
        logger=None,
        asgi_routes=[
            ("/livez", _probe(runtime.lives)),
            ("/readyz", _probe(runtime.ready)),
            ("/metrics", make_asgi_app()),
        ],
        on_shutdown=[runtime.stop],
    )
    options: dict[str, Any] = {"host": settings.probes_host, "port": str(settings.probes_port)}
    await app.run(log_level=logging.WARNING, run_extra_options=options)


async def _until_kafka_answers(bootstrap_servers: str) -> None:
    """Wait for Kafka likewise: processes that die and start again take the time that its recovery needs.

    Raises Misconfigured when it answers and does not let us in.
    """
    delay = 0.2
    while True:
        await refuse_wrong_access(bootstrap_servers)
        client = AIOKafkaClient(**client_options(bootstrap_servers))
        try:
            await client.bootstrap()
            return
        except KafkaError as error:
            log.warning("Kafka does not answer yet", extra={"error": repr(error)})
        finally:
            await client.close()
        await asyncio.sleep(delay)
        delay = min(delay * 2, 5.0)


async def _until_stores_answer(runtime: Runtime) -> None:
    """Wait for PostgreSQL instead of dying by the second; a wrong setting ends the process at once."""
    delay = 0.2
    while True:
        try:
            await runtime.prepare()
            return
        except (OSError, asyncpg.PostgresConnectionError, asyncpg.CannotConnectNowError, TimeoutError) as error:
            log.warning("PostgreSQL does not answer yet", extra={"error": repr(error)})
            await asyncio.sleep(delay)
            delay = min(delay * 2, 5.0)


def _probe(holds: Callable[[], bool]) -> ASGIApp:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        good = holds()
        await AsgiResponse(b"yes" if good else b"no", 200 if good else 503)(scope, receive, send)

    return answer
