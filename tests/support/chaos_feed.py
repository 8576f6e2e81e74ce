"""Sends a mix through every door, as clients do: what is not known to be accepted is sent again."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import httpx
from aiokafka import AIOKafkaProducer

from shared.ids import partition_of
from tests.support.chaos_mix import Sending

CHUNK = 200
CALL = 40
CALLERS = 3


class Feed:
    """Sends in order, no faster than `allowed()` (a share of all) lets it."""

    def __init__(
        self, bootstrap_servers: str, gateway_url: str, key: str, partitions: int, patience: float = 180.0
    ) -> None:
        self._patience = patience
        self._servers, self._gateway, self._key, self._partitions = bootstrap_servers, gateway_url, key, partitions
        self._producer: Any = None
        self.accepted = 0
        self.again: Counter[str] = Counter()

    def twin(self) -> Feed:
        """Another that sends the same way."""
        return Feed(self._servers, self._gateway, self._key, self._partitions, self._patience)

    async def run(self, sendings: Sequence[Sending], allowed: Callable[[], float] = lambda: 1.0) -> None:
        calls: asyncio.Queue[list[Sending] | None] = asyncio.Queue(CALLERS * 2)
        async with httpx.AsyncClient(base_url=self._gateway, timeout=10, auth=(self._key, "")) as client:
            callers = [asyncio.create_task(self._calls(client, calls)) for _ in range(CALLERS)]
            try:
                for start in range(0, len(sendings), CHUNK):
                    while start > allowed() * len(sendings):  # noqa: ASYNC110 (a share of time, not an event)
                        await asyncio.sleep(0.05)
                    chunk = sendings[start : start + CHUNK]
                    await self._produce([one for one in chunk if one.door == "kafka"])
                    batch = [one for one in chunk if one.door == "batch"]
                    for first in range(0, len(batch), CALL):
                        await calls.put(batch[first : first + CALL])
                    for one in chunk:
                        if one.door == "request":
                            await calls.put([one])
                for _ in callers:
                    await calls.put(None)
                await asyncio.gather(*callers)
            finally:
                for caller in callers:
                    caller.cancel()
                await self._close()

    async def _produce(self, records: Sequence[Sending]) -> None:
        waiting = list(records)
        while waiting:
            try:
                if self._producer is None:
                    self._producer = await self._connect()
                async with asyncio.timeout(30):
                    futures = [await self._send(one) for one in waiting]
                    done = await asyncio.gather(*futures, return_exceptions=True)
                failed = [one for one, got in zip(waiting, done, strict=True) if isinstance(got, BaseException)]
            except Exception:
                failed = waiting
            self.accepted += len(waiting) - len(failed)
            waiting = failed
            if waiting:
                self.again["kafka"] += len(waiting) if self._producer else 0
                await self._close()
                await asyncio.sleep(0.3)

    async def _connect(self) -> Any:
        producer = AIOKafkaProducer(
            bootstrap_servers=self._servers, acks="all", enable_idempotence=True, linger_ms=5, request_timeout_ms=8_000
        )
        try:
            await producer.start()
        except BaseException:
            await producer.stop()
            raise
        return producer

    async def _send(self, one: Sending) -> Any:
        place = partition_of(one.key, self._partitions)
        return await self._producer.send(one.topic, one.value, key=one.key, partition=place, headers=list(one.headers))

    async def _close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            try:
                async with asyncio.timeout(3):
                    await producer.stop()
            except Exception:
                producer._sender.sender_task.cancel()

    async def _calls(self, client: httpx.AsyncClient, calls: asyncio.Queue[list[Sending] | None]) -> None:
        while (sendings := await calls.get()) is not None:
            if sendings[0].door == "request":
                await self._call(client, "/v1/requests", sendings[0].value, sendings)
            else:
                body = b'{"batch":[' + b",".join(one.value for one in sendings) + b"]}"
                await self._call(client, "/v1/batch", body, sendings)

    async def _call(self, client: httpx.AsyncClient, path: str, body: bytes, sendings: Iterable[Sending]) -> None:
        deadline = time.monotonic() + self._patience
        while True:
            try:
                answer = await client.post(path, content=body, headers={"content-type": "application/json"})
                if answer.status_code in (200, 202):
                    self.accepted += len(list(sendings))
                    return
                assert answer.status_code >= 500 or answer.status_code == 429, f"{path}: {answer.text[:300]}"
                self.again[str(answer.status_code)] += 1
            except httpx.TransportError as error:
                self.again[type(error).__name__] += 1
            assert time.monotonic() < deadline, f"no {path} taken in {self._patience:.0f} s: {self.again}"
            await asyncio.sleep(0.3)


def ids_of(sendings: Iterable[Sending]) -> set[str]:
    return {one.identity for one in sendings if one.identity}
