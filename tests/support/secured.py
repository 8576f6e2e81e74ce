"""A broker that wants TLS, passwords and rights, and certificates of a test's own authority."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from devstack import jars, ports
from devstack.kafka import Kafka
from services.__main__ import NAMES
from shared.access import PROTOCOLS

PREFIX = "hune-"
USERS = (*NAMES, "cli", "stranger")


class Authority:
    """Signs certificates for 127.0.0.1 and for clients."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test's authority")])
        basic = x509.BasicConstraints(ca=True, path_length=None)
        signed = (
            self._builder(self._name, self._key).add_extension(basic, critical=True).sign(self._key, hashes.SHA256())
        )
        self.certificate = signed.public_bytes(serialization.Encoding.PEM)
        self.file = folder / "ca.pem"
        self.file.write_bytes(self.certificate)

    def issue(self, name: str) -> tuple[Path, Path]:
        """(certificate, key) in files; both in one beside them, as Kafka takes it."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        signed = self._builder(subject, key).add_extension(here, critical=False).sign(self._key, hashes.SHA256())
        pem = signed.public_bytes(serialization.Encoding.PEM)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        certificate, keyfile = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        certificate.write_bytes(pem)
        keyfile.write_bytes(private)
        keyfile.chmod(0o600)
        (self.folder / f"{name}.both.pem").write_bytes(private + pem + self.certificate)
        return certificate, keyfile

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=2))
        )


class SecuredKafka(Kafka):
    """Beside the open listener, which is the administrator's here: SASL over TLS, and TLS with certificates."""

    def __init__(self, home: Path, authority: Authority) -> None:
        port, controller, self.sasl_port, self.tls_port = ports.choose(4)
        super().__init__(home, port, controller, jars.ensure())
        authority.issue("broker")
        self._keystore, self._truststore = authority.folder / "broker.both.pem", authority.file
        self.format_options = tuple(
            part
            for user in USERS
            for part in ("--add-scram", f"SCRAM-SHA-512=[name={PREFIX}{user},password={password_of(user)}]")
        )

    @property
    def sasl_servers(self) -> str:
        return f"127.0.0.1:{self.sasl_port}"

    @property
    def tls_servers(self) -> str:
        return f"127.0.0.1:{self.tls_port}"

    def _settings(self, data: Path) -> dict[str, object]:
        open_ones = super()._settings(data)
        more = f"SASL_SSL://{self.sasl_servers},SSL://{self.tls_servers}"
        jaas = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        return open_ones | {
            "listeners": f"{open_ones['listeners']},{more}",
            "advertised.listeners": f"{open_ones['advertised.listeners']},{more}",
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.security.protocol.map": ",".join(f"{one}:{one}" for one in PROTOCOLS) + ",CONTROLLER:PLAINTEXT",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": self._keystore,
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": self._truststore,
            "listener.name.ssl.ssl.client.auth": "required",
            "sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": jaas,
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "allow.everyone.if.no.acl.found": "false",
            "super.users": "User:ANONYMOUS;User:CN=administrator",
        }


def password_of(user: str) -> str:
    return f"secret-of-{user}"


@contextmanager
def a_secured_kafka(home: Path) -> Iterator[tuple[SecuredKafka, Authority]]:
    authority = Authority(home)
    (home / "logs").mkdir(exist_ok=True)
    broker = SecuredKafka(home, authority)
    try:
        broker.prepare()
        broker.spawn()
        deadline = time.monotonic() + 60
        while not broker.is_ready():
            assert broker.exit_code() is None, broker.log.read_text()[-3000:]
            assert time.monotonic() < deadline, "Kafka did not start within 60 s"
            time.sleep(0.05)
        yield broker, authority
    finally:
        broker.stop()
