"""E-mail over SMTP, as text and HTML: one message a delivery, an alert's messages in one conversation."""

from __future__ import annotations

import asyncio
import smtplib
import ssl
from dataclasses import dataclass
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from html import escape
from urllib.parse import unquote, urlsplit

from services.notify import wording
from services.notify.card import Card, plain
from services.notify.sinks import Letter, Outcome
from services.notify.text import clean, one_line
from shared.errors import Misconfigured

MOST_SUBJECT = 200


@dataclass(frozen=True, slots=True)
class Server:
    """Where mail is handed over; `security`: TLS from the start, after STARTTLS, or none."""

    host: str
    port: int
    security: str
    user: str
    password: str
    sender: str


def server_of(url: str, sender: str) -> Server:
    """Read `smtps://user:password@host:465`, or `smtp://…` for STARTTLS; `smtp+plain://` for neither.

    Raises Misconfigured that names the variable.
    """
    kinds = {"smtps": ("tls", 465), "smtp": ("starttls", 587), "smtp+plain": ("none", 25)}
    parts = urlsplit(url)
    if parts.scheme not in kinds or not parts.hostname:
        raise Misconfigured("HUNE_SMTP_URL is no address; write smtps://user:password@mail.example.com:465")
    if "@" not in sender:
        raise Misconfigured("HUNE_SMTP_FROM is empty or no address; write hune@example.com")
    security, port = kinds[parts.scheme]
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    return Server(parts.hostname, parts.port or port, security, user, password, sender)


class Mail:
    """Hands messages to one server. A mail of unclear outcome is sent again under the same Message-ID."""

    name, updates, looks_up, is_machine, paced = "email", False, False, False, False

    def __init__(self, server: Server, timeout: float) -> None:
        self._server, self._timeout = server, timeout

    async def post(self, letter: Letter) -> Outcome:
        message = mail_of(letter, self._server.sender)
        return await asyncio.to_thread(self._send, message, letter.address)

    async def update(self, letter: Letter) -> Outcome:
        return Outcome("failed", "nothing can be changed there")

    async def look_up(self, letter: Letter) -> Outcome:
        return Outcome("failed", "nothing can be found there")

    async def close(self) -> None:
        return

    def _send(self, message: EmailMessage, to: str) -> Outcome:
        server, handed_over = self._server, False
        try:
            with self._connect() as smtp:
                if server.security == "starttls":
                    smtp.starttls(context=ssl.create_default_context())
                if server.user:
                    smtp.login(server.user, server.password)
                handed_over = True
                smtp.sendmail(one_line(server.sender), [to], message.as_bytes(policy=SMTP))
        except smtplib.SMTPRecipientsRefused as error:
            return _answered(error.recipients[to][0], "recipient refused")
        except smtplib.SMTPResponseException as error:
            return _answered(error.smtp_code, type(error).__name__)
        except ssl.SSLCertVerificationError as error:
            return Outcome("refused", f"the mail server's certificate: {error.verify_message}")
        except (OSError, smtplib.SMTPException) as error:
            return Outcome("unclear" if handed_over else "refused", type(error).__name__)
        return Outcome("sent")

    def _connect(self) -> smtplib.SMTP:
        server = self._server
        if server.security == "tls":
            context = ssl.create_default_context()
            return smtplib.SMTP_SSL(server.host, server.port, timeout=self._timeout, context=context)
        return smtplib.SMTP(server.host, server.port, timeout=self._timeout)


def _answered(code: int, reason: str) -> Outcome:
    """The server said no: for now (4xx), or for good (5xx)."""
    return Outcome("failed" if 550 <= code <= 559 else "refused", f"{reason}: {code}")


def mail_of(letter: Letter, sender: str) -> EmailMessage:
    """The message; nothing that customers typed can end a header."""
    domain = sender.rpartition("@")[2]
    lines = [line for block in letter.message.blocks for line in _lines_of(block)]
    message = EmailMessage()
    message["From"] = _address("Hune", sender)
    message["To"] = _address("", letter.address)
    message["Subject"] = one_line(letter.cards[0].headline if letter.what == "open" else lines[0], MOST_SUBJECT)
    message["Date"] = format_datetime(letter.cards[0].now)
    message["Message-ID"] = f"<{letter.delivery_id}@{domain}>"
    if letter.what != "digest":
        message["References"] = f"<{_token(letter.cards[0].episode.alert_id)}@{domain}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(plain(letter.cards[0]) if letter.what == "open" else "\n".join(lines))
    message.add_alternative(html_of(letter.cards[0]) if letter.what == "open" else _html(lines), subtype="html")
    return message


def html_of(card: Card) -> str:
    """The card as HTML; every word of it is text."""
    rows = "".join(f"<tr><th>{_safe(name)}</th><td>{_safe(value)}</td></tr>" for name, value in card.facts)
    parts = [f"<h2>{_safe(card.headline)}</h2>", f"<p>{_safe(card.episode.why)}</p>", f"<table>{rows}</table>"]
    for name, value in card.reasons:
        parts.append(f"<p>{_safe(wording.label(name, value, card.language))}</p>")
    if card.evidence:
        parts.append(f"<ul>{''.join(f'<li>{_safe(line)}</li>' for line in card.evidence)}</ul>")
    if card.episode.next_step and card.episode.is_open:
        parts.append(f"<p><b>→ {_safe(card.episode.next_step)}</b></p>")
    parts.append(f"<p><small>{_safe(', '.join(card.status))}</small></p>")
    return "".join(parts)


def _html(lines: list[str]) -> str:
    return "".join(f"<p>{_safe(line)}</p>" for line in lines)


def _safe(text: str) -> str:
    return escape(clean(text)).replace("\n", "<br>")


def _lines_of(block: dict[str, object]) -> list[str]:
    """What stands in a block, line by line."""
    text, elements = block.get("text"), block.get("elements")
    parts = [text] if isinstance(text, dict) else []
    if block.get("type") == "context" and isinstance(elements, list):
        parts += elements
    return [line for part in parts for line in str(part["text"]).split("\n")]


def _address(name: str, address: str) -> Address:
    user, _, domain = one_line(address).rpartition("@")
    return Address(name, user, domain)


def _token(text: str) -> str:
    return "".join(sign for sign in text if sign.isascii() and (sign.isalnum() or sign in "-._"))[:100] or "alert"
