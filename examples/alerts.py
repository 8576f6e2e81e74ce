"""Print every alert, once and in order per account: `python examples/alerts.py localhost:9092 my-alerts`."""

import asyncio
import sys
from typing import Any

from faststream import FastStream
from faststream.kafka import KafkaBroker, KafkaMessage

broker = KafkaBroker(sys.argv[1], logger=None)


@broker.subscriber("cs.alerts.v1", group_id=sys.argv[2], auto_offset_reset="earliest", isolation_level="read_committed")
async def on_alert(alert: dict[str, Any], message: KafkaMessage) -> None:
    kind = message.headers["ce_type"].removeprefix("hune.").removesuffix(".v1")
    print(message.headers["ce_id"], kind, alert["account_id"], alert.get("severity"), alert.get("title"), flush=True)


asyncio.run(FastStream(broker).run())
