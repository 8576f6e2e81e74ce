"""How Kafka is reached: in the clear, by TLS, with a user and a password, as `HUNE_KAFKA_*` says."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    IllegalSaslStateError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)

from shared.errors import Misconfigured

PLAINTEXT = "PLAINTEXT"
PROTOCOLS = (PLAINTEXT, "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS = ("SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN")
REFUSALS = (SaslAuthenticationFailed, UnsupportedSaslMechanismError, IllegalSaslStateError)
PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True)
class Access:
    """What a client shows to Kafka, and by what it knows Kafka."""

    protocol: str = PLAINTEXT
    mechanism: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    cafile: str = ""
    certfile: str = ""
    keyfile: str = ""

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Access:
        """Read the variables.

        Raises Misconfigured that names the one that is wrong or missing.
        """

        def said(name: str, default: str = "") -> str:
            return env.get(name, "").strip() or default

        protocol = said("HUNE_KAFKA_SECURITY_PROTOCOL", PLAINTEXT).upper()
        if protocol not in PROTOCOLS:
            raise Misconfigured(f"HUNE_KAFKA_SECURITY_PROTOCOL is {protocol!r}; it takes {', '.join(PROTOCOLS)}")
        access = cls(
            protocol,
            said("HUNE_KAFKA_SASL_MECHANISM", MECHANISMS[0]).upper(),
            said("HUNE_KAFKA_USERNAME"),
            _password(said("HUNE_KAFKA_PASSWORD"), said("HUNE_KAFKA_PASSWORD_FILE")),
            said("HUNE_KAFKA_CAFILE"),
            said("HUNE_KAFKA_CERTFILE"),
            said("HUNE_KAFKA_KEYFILE"),
        )
        access._check()
        return access

    @property
    def is_sasl(self) -> bool:
        return self.protocol.startswith("SASL")

    @property
    def is_tls(self) -> bool:
        return self.protocol.endswith("SSL")

    @property
    def is_checked(self) -> bool:
        """Whether Kafka may refuse us."""
        return self.protocol != PLAINTEXT

    def options(self) -> dict[str, Any]:
        """As aiokafka's clients take it."""
        found: dict[str, Any] = {"security_protocol": self.protocol}
        if self.is_tls:
            found["ssl_context"] = _context(self.cafile, self.certfile, self.keyfile)
        if self.is_sasl:
            found |= {
                "sasl_mechanism": self.mechanism,
                "sasl_plain_username": self.username,
                "sasl_plain_password": self.password,
            }
        return found

    def faststream(self) -> Any:
        """As FastStream's broker takes it; None in the clear."""
        from faststream import security  # late: the command line has no need of it

        context = _context(self.cafile, self.certfile, self.keyfile) if self.is_tls else None
        if not self.is_sasl:
            return security.BaseSecurity(ssl_context=context, use_ssl=True) if context else None
        kinds = {
            "PLAIN": security.SASLPlaintext,
            "SCRAM-SHA-256": security.SASLScram256,
            "SCRAM-SHA-512": security.SASLScram512,
        }
        return kinds[self.mechanism](self.username, self.password, ssl_context=context, use_ssl=self.is_tls)

    def _check(self) -> None:
        if self.is_sasl:
            if self.mechanism not in MECHANISMS:
                raise Misconfigured(
                    f"HUNE_KAFKA_SASL_MECHANISM is {self.mechanism!r}; it takes {', '.join(MECHANISMS)}"
                )
            for name, value in (("HUNE_KAFKA_USERNAME", self.username), ("HUNE_KAFKA_PASSWORD", self.password)):
                if not value:
                    raise Misconfigured(f"{name} is empty, and HUNE_KAFKA_SECURITY_PROTOCOL is {self.protocol}")
        elif self.username or self.password:
            raise Misconfigured(
                f"HUNE_KAFKA_USERNAME and HUNE_KAFKA_PASSWORD are of no use with HUNE_KAFKA_SECURITY_PROTOCOL "
                f"{self.protocol}; it takes SASL_SSL (or SASL_PLAINTEXT in a network of your own)"
            )
        if not self.is_tls and (self.cafile or self.certfile):
            raise Misconfigured(
                f"HUNE_KAFKA_CAFILE and HUNE_KAFKA_CERTFILE are of no use with HUNE_KAFKA_SECURITY_PROTOCOL "
                f"{self.protocol}; it takes SSL or SASL_SSL"
            )
        if self.is_tls:
            _context(self.cafile, self.certfile, self.keyfile)


def _password(given: str, file: str) -> str:
    if given or not file:
        return given
    try:
        return Path(file).read_text().strip()
    except OSError as error:
        raise Misconfigured(f"HUNE_KAFKA_PASSWORD_FILE {file} cannot be read: {error.strerror}") from error


@lru_cache(maxsize=8)
def _context(cafile: str, certfile: str, keyfile: str) -> ssl.SSLContext:
    """Verifies the broker's name and certificate; there is no way to switch that off."""
    try:
        context = ssl.create_default_context(cafile=cafile or None)
    except (OSError, ssl.SSLError) as error:
        raise Misconfigured(f"HUNE_KAFKA_CAFILE {cafile} holds no certificates in PEM: {error}") from error
    if certfile:
        try:
            context.load_cert_chain(certfile, keyfile or None)
        except (OSError, ssl.SSLError) as error:
            raise Misconfigured(
                f"HUNE_KAFKA_CERTFILE {certfile} and HUNE_KAFKA_KEYFILE {keyfile or '(none)'} "
                f"are no certificate with its key in PEM: {error}"
            ) from error
    return context


async def refuse_wrong_access(bootstrap_servers: str) -> None:
    """See whether Kafka lets us in; returns also when it cannot be reached now.

    aiokafka only logs why it could not connect, and then tries for ever.
    Raises Misconfigured that says what Kafka, or the certificate check, had against us.
    """
    access = Access.from_env()
    for host, port, _ in collect_hosts(bootstrap_servers):
        try:
            async with asyncio.timeout(PATIENCE_S):
                connection = await create_conn(host, port, client_id="hune", **access.options())
            connection.close()
            return
        except REFUSALS as error:
            raise Misconfigured(
                f"Kafka at {host}:{port} refuses HUNE_KAFKA_USERNAME {access.username!r} ({access.mechanism}): "
                f"{error or type(error).__name__}; see HUNE_KAFKA_PASSWORD and HUNE_KAFKA_SASL_MECHANISM"
            ) from error
        except (OSError, KafkaError, TimeoutError) as error:
            trouble = await _tls_trouble(host, port, access)
            if trouble:
                raise Misconfigured(f"Kafka at {host}:{port} {trouble}") from error


async def _tls_trouble(host: str, port: int, access: Access) -> str:
    """What is wrong with TLS, where something listens and TLS is asked for; aiokafka tells it from nothing else."""
    if not access.is_tls or not await _listens(host, port):
        return ""
    try:
        async with asyncio.timeout(PATIENCE_S):
            context = _context(access.cafile, access.certfile, access.keyfile)
            reader, writer = await asyncio.open_connection(host, port, ssl=context)
    except ssl.SSLCertVerificationError as error:
        return (
            f"shows a certificate that does not hold: {error.verify_message}; "
            "HUNE_KAFKA_CAFILE takes the file of those who signed it"
        )
    except (OSError, EOFError, TimeoutError) as error:
        return f"does not speak TLS ({error or type(error).__name__}); see HUNE_KAFKA_SECURITY_PROTOCOL"
    try:
        async with asyncio.timeout(1):  # whether it takes our certificate is said after the handshake
            await reader.read(1)
    except ssl.SSLError as error:
        return f"does not take our certificate: {error.reason}; see HUNE_KAFKA_CERTFILE and HUNE_KAFKA_KEYFILE"
    except (OSError, TimeoutError):
        return ""
    finally:
        writer.close()
    return ""


async def _listens(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(PATIENCE_S):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
