"""The hot path's decoder of usage: accepts and refuses what the contract's model does, several times quicker."""

from __future__ import annotations

from typing import Annotated, Any, cast

import msgspec

from shared.events.base import Event
from shared.events.inputs import UsageTracked

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
PLAIN = 100


class FastUsage(msgspec.Struct, frozen=True, gc=False):
    """`UsageTracked` as msgspec reads it."""

    account_id: Name | None = None
    user_id: Name | None = None
    event: Name = "feature_used"
    feature: Name | None = None
    product: Name | None = None
    properties: Any = None


_decode = msgspec.json.Decoder(FastUsage).decode


def read_usage(body: bytes) -> Event:
    """Decode one event of use. What is odd goes to the contract's model, which says what is wrong with it.

    Raises pydantic's ValidationError.
    """
    # Odd: deep nesting, where the two parsers' limits differ, and text that is not UTF-8.
    if body.count(b"{") + body.count(b"[") <= PLAIN:
        try:
            if not body.isascii():
                body.decode()
            return cast(Event, _decode(body))
        except (msgspec.MsgspecError, UnicodeDecodeError):
            pass
    return UsageTracked.model_validate_json(body)
