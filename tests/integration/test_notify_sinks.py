"""E-mail and outgoing webhooks, from the same ledger: real servers, that refuse, break and come back."""

from __future__ import annotations

import base64
import email
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from email.policy import default
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from devstack.ports import choose
from services.notify import app, blocks, sample
from services.notify.settings import Reach
from services.notify.sinks import Letter
from services.notify.webhook import Endpoint, PublicResolver, Webhooks, endpoint_of, is_public, sign
from shared.errors import Misconfigured
from tests.support.notify_world import World, a_world, now, opened, resolved

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
PERSON, ADDRESS = "lea@example.com", "email:lea@example.com"


@pytest_asyncio.fixture
async def world(postgres: str) -> AsyncIterator[World]:
    async with a_world(postgres) as made:
        yield made


def reaching(world: World, reach: Reach, **channel: str) -> World:
    """The world with one channel, called `x`."""
    there = world.with_rules(channels={"x": channel}, routes=[{"to": ["x"]}])
    found = app.ways(there.rules, reach)
    return replace(there, places=found.places, sinks=app.open_sinks(there.rules, reach, found))


async def until_told(world: World, destination: str) -> None:
    for _ in range(4):
        await world.say(destination)
        await world.later(minutes=10)
        await world.pool.execute("update notify.deliveries set attempted_at = attempted_at - interval '1 minute'")


@dataclass
class Mailbox:
    """A mail server's handler: what it was handed, and what it answers next."""

    answers: list[str] = field(default_factory=list)
    mails: list[Any] = field(default_factory=list)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        answer = self.answers.pop(0) if self.answers else "250 taken"
        if answer.startswith("250") or answer == "break":
            self.mails.append(email.message_from_bytes(envelope.original_content or b"", policy=default))
        if answer == "break":
            assert server.transport is not None
            server.transport.abort()  # type: ignore[attr-defined]
        return answer


@contextmanager
def a_mailbox(*answers: str) -> Iterator[tuple[Mailbox, Reach]]:
    box = Mailbox(list(answers))
    controller = Controller(box, hostname="127.0.0.1", port=choose(1)[0])
    controller.start()
    try:
        yield box, Reach(smtp_url=f"smtp+plain://127.0.0.1:{controller.port}", smtp_from="hune@example.com")
    finally:
        controller.stop()


async def test_an_alert_is_a_mail_and_its_end_another_in_the_same_conversation(world: World) -> None:
    with a_mailbox() as (box, reach):
        mail = reaching(world, reach, email=PERSON)
        await mail.hear(opened("acme", "a1", title="<b>red</b>\r\nBcc: all@example.com", why="“é” & <script>"))
        await until_told(mail, ADDRESS)
        await mail.hear(resolved("acme", "a1"))
        await until_told(mail, ADDRESS)
    assert len(box.mails) == 2, [(row["state"], row["reason"]) for row in await world.rows()]
    first, second = box.mails
    assert first["Subject"] == "🟠 acme · <b>red</b> Bcc: all@example.com"
    assert (first["To"], first["Bcc"]) == (PERSON, None)
    assert second["References"] == first["References"]
    html = first.get_body(("html",)).get_content()
    assert "<script>" not in html
    assert "“é” &amp; &lt;script&gt;" in html
    assert "“é” & <script>" in first.get_body(("plain",)).get_content()
    assert "✅ Over" in second["Subject"]


@pytest.mark.parametrize(("answer", "copies"), [("451 later", 1), ("break", 2)])
async def test_a_mail_is_tried_again_under_the_same_id(world: World, answer: str, copies: int) -> None:
    with a_mailbox(answer) as (box, reach):
        mail = reaching(world, reach, email=PERSON)
        await mail.hear(opened("acme"))
        await until_told(mail, ADDRESS)
    assert len(box.mails) == copies, "whether a mail arrived whose connection broke nobody can ask"
    assert len({one["Message-ID"] for one in box.mails}) == 1
    assert [row["state"] for row in await world.rows()] == ["sent"]


async def test_an_address_that_is_none_is_given_up_and_can_be_redriven(world: World) -> None:
    from services.notify.store import redrive

    with a_mailbox("550 no such user") as (box, reach):
        mail = reaching(world, reach, email=PERSON)
        await mail.hear(opened("acme"), opened("other"))
        await until_told(mail, ADDRESS)
        assert [row["state"] for row in await world.rows()] == ["failed", "sent"]
        async with world.pool.acquire() as db:
            assert await redrive(db, ADDRESS) == 1
        await until_told(mail, ADDRESS)
    assert len(box.mails) == 2


@dataclass
class Receiver:
    """A receiver of webhooks that checks signatures; `answers` are the statuses it gives before 200."""

    answers: list[int] = field(default_factory=list)
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        body, head = await request.read(), request.headers
        signed = f"{head['webhook-id']}.{head['webhook-timestamp']}.".encode() + body
        digest = base64.b64encode(hmac.digest(b"k" * 32, signed, hashlib.sha256)).decode()
        assert head["webhook-signature"] == f"v1,{digest}"
        self.calls.append((head["webhook-id"], json.loads(body)))
        status = self.answers.pop(0) if self.answers else 200
        headers = {"Location": "/elsewhere"} if 300 <= status < 400 else {}
        return web.Response(status=status, headers=headers)


async def test_a_webhook_is_signed_tried_again_and_in_order(world: World) -> None:
    receiver = Receiver([500, 302])
    application = web.Application()
    application.router.add_post("/hook", receiver.take)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    port = choose(1)[0]
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        variables = {"CRM": f"http://127.0.0.1:{port}/hook", "CRM_SECRET": SECRET}
        hooked = reaching(world, Reach(private_webhooks=True, variables=variables), webhook="CRM")
        await hooked.hear(opened("acme", "a1"))
        await until_told(hooked, "webhook:x")
        await hooked.hear(resolved("acme", "a1"))
        await until_told(hooked, "webhook:x")
        await hooked.sinks["webhook"].close()
    finally:
        await runner.cleanup()
    assert [body["type"] for _, body in receiver.calls] == ["alert.opened"] * 3 + ["alert.resolved"]
    assert len({id for id, _ in receiver.calls}) == 2, "the same id on every attempt"
    assert [(body["data"]["state"], body["data"]["version"]) for _, body in receiver.calls[2:]] == [
        ("open", 1), ("resolved", 2),
    ]  # fmt: skip


def test_signatures_are_those_of_the_specification() -> None:
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    found = sign(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "192.168.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1", "::1",
     "fe80::1%eth0", "fd00::1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "2001:0:a00:1::"],
)  # fmt: skip
async def test_no_webhook_leads_into_a_private_network(address: str) -> None:
    assert not is_public(address)
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(Misconfigured):
        endpoint_of("CRM", f"https://{host}/", SECRET, private=False)
    hooks = Webhooks({"x": Endpoint("https://sly.example.com/", b"k" * 32)}, 1, resolver=PublicResolver(Sly(address)))
    outcome = await hooks.post(a_letter())
    await hooks.close()
    assert (outcome.what, "private network" in outcome.reason) == ("refused", True)


def a_letter() -> Letter:
    card = sample.card(now(), "en")
    return Letter("d1", "open", "x", None, blocks.of_card(card), (card,))


@dataclass
class Sly(AbstractResolver):
    """A name that is public by its looks only."""

    address: str

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=one, port=port, family=family, proto=0, flags=0)
            for one in ("93.184.215.14", self.address)
        ]

    async def close(self) -> None:
        return


@pytest.mark.parametrize(
    ("url", "secret"),
    [("http://a.example.com", SECRET), ("https://a.example.com:22", SECRET), ("https://" + "u:p@a.example.com", SECRET),
     ("https://a.example.com", "whsec_short"), ("https://a.example.com:99999", SECRET)],
)  # fmt: skip
def test_an_address_or_secret_that_will_not_do_is_named(url: str, secret: str) -> None:
    with pytest.raises(Misconfigured, match="CRM"):
        endpoint_of("CRM", url, secret, private=False)
