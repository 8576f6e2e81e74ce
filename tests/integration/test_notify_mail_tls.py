"""Mail over TLS, with a real server: from the first byte, after STARTTLS, and with certificates that will not do."""

from __future__ import annotations

import email
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from devstack.ports import choose
from services.notify import blocks, sample
from services.notify.mail import Mail, server_of
from services.notify.sinks import Letter, Outcome
from tests.support.secured import Authority


class Box:
    """A server's mailbox, that takes mail over TLS only, and its one user."""

    def __init__(self) -> None:
        self.subjects: list[str] = []
        self.users: list[str] = []

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        assert server.transport is not None
        if session.ssl is None and server.transport.get_extra_info("ssl_object") is None:
            return "530 in the clear"
        self.subjects.append(email.message_from_bytes(envelope.original_content or b"", policy=default)["Subject"])
        return "250 taken"

    def check(self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        self.users.append(data.login.decode())
        return AuthResult(success=data.password == b"p@ss", handled=False)


# The server of tests warns of what it is told to do where TLS is there from the first byte.
pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")


@contextmanager
def a_server(box: Box, certificate: Path, key: Path, *, implicit: bool) -> Iterator[int]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    port = choose(1)[0]
    tls: dict[str, Any] = (
        {"ssl_context": context, "auth_require_tls": False}
        if implicit
        else {"tls_context": context, "require_starttls": True}
    )
    controller = Controller(box, hostname="127.0.0.1", port=port, authenticator=box.check, auth_required=True, **tls)
    controller.start()
    try:
        yield port
    finally:
        controller.stop()


async def sent(url: str) -> Outcome:
    card = sample.card(datetime(2026, 11, 22, 9, tzinfo=UTC), "en")
    letter = Letter("d1", "open", "lea@example.com", None, blocks.of_card(card), (card,))
    return await Mail(server_of(url, "hune@example.com"), 5).post(letter)


@pytest.mark.parametrize("scheme", ["smtps", "smtp"])
async def test_mail_goes_over_tls_with_its_user(scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority, box = Authority(tmp_path), Box()
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    with a_server(box, *authority.issue("mail"), implicit=scheme == "smtps") as port:
        good = await sent(f"{scheme}://hune:p%40ss@127.0.0.1:{port}")
        wrong = await sent(f"{scheme}://hune:guess@127.0.0.1:{port}")
    assert good == Outcome("sent")
    assert (wrong.what, wrong.reason) == ("refused", "SMTPAuthenticationError: 535")
    assert len(box.subjects) == 1
    assert set(box.users) == {"hune"}


@pytest.mark.parametrize("scheme", ["smtps", "smtp"])
async def test_a_certificate_of_nobody_known_or_of_another_host_is_named_and_no_mail_is_sent(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority, box = Authority(tmp_path), Box()
    with a_server(box, *authority.issue("mail"), implicit=scheme == "smtps") as port:
        strange = await sent(f"{scheme}://hune:p%40ss@127.0.0.1:{port}")
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
        other = await sent(f"{scheme}://hune:p%40ss@localhost:{port}")
    assert (strange.what, other.what) == ("refused", "refused")
    assert strange.reason.startswith("the mail server's certificate: ")
    assert "issuer" in strange.reason or "self-signed" in strange.reason
    assert "localhost" in other.reason
    assert (box.subjects, box.users) == ([], [])


async def test_a_server_without_tls_gets_no_password(tmp_path: Path) -> None:
    box, port = Box(), choose(1)[0]
    controller = Controller(box, hostname="127.0.0.1", port=port, authenticator=box.check, auth_require_tls=False)
    controller.start()
    try:
        outcome = await sent(f"smtp://hune:p%40ss@127.0.0.1:{port}")
    finally:
        controller.stop()
    assert (outcome.what, outcome.reason) == ("refused", "SMTPNotSupportedError")
    assert (box.subjects, box.users) == ([], [])
