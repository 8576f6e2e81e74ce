"""The installation's secrets: one makes references, the others wrap the persons' keys; and what both are used for.

One line, `hv1.REFERENCE.WRAPPING[.OLDER…]`, each 32 bytes in URL-safe base64. The reference secret never changes, or
the same person would become another one; a wrapping key is changed by putting a new one before the old.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shared.errors import Misconfigured

VERSION = "hv1"
SIZE = 32
NONCE = 12
MARK = 4
FILE_NAME = "vault.key"
VARIABLE, FILE_VARIABLE, FIELDS_VARIABLE = "HUNE_VAULT_KEY", "HUNE_VAULT_KEY_FILE", "HUNE_VAULT_FIELDS"


class Unreadable(Exception):
    """No key that is known opens this."""


@dataclass(frozen=True)
class Keys:
    """`wrapping` holds the key in use first, then those that still open what they closed."""

    reference: bytes
    wrapping: tuple[bytes, ...]

    @classmethod
    def make(cls) -> Keys:
        return cls(secrets.token_bytes(SIZE), (secrets.token_bytes(SIZE),))

    @classmethod
    def from_text(cls, text: str, named: str) -> Keys:
        """Read the line.

        Raises Misconfigured with the variable or file that `named` tells.
        """
        version, *parts = text.strip().split(".")
        try:
            found = [base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in parts]
        except ValueError:
            found = []
        if version != VERSION or len(found) < 2 or any(len(part) != SIZE for part in found):
            raise Misconfigured(f"{named} holds no key of a contact vault; `hune vault key` makes one")
        return cls(found[0], tuple(found[1:]))

    @property
    def text(self) -> str:
        parts = [base64.urlsafe_b64encode(key).decode().rstrip("=") for key in (self.reference, *self.wrapping)]
        return ".".join((VERSION, *parts))

    @property
    def fingerprint(self) -> bytes:
        """Tells installations' reference secrets apart without telling anything of them."""
        return hashlib.sha256(b"hune vault\0" + self.reference).digest()[:16]

    def changed(self) -> Keys:
        """The same with a new wrapping key before the others."""
        return Keys(self.reference, (secrets.token_bytes(SIZE), *self.wrapping))

    def alone(self) -> Keys:
        """The same without the older wrapping keys."""
        return Keys(self.reference, self.wrapping[:1])

    def digest(self, *parts: str) -> bytes:
        return hmac.digest(self.reference, "\0".join(parts).encode("utf-8", "surrogatepass"), "sha256")

    def wrap(self, content: bytes, about: str) -> bytes:
        """Close with the wrapping key in use; `about` must be the same on opening."""
        mark = _mark(self.wrapping[0])
        return mark + lock(self._locks[mark], content, about)

    def unwrap(self, closed: bytes, about: str) -> bytes:
        """Open what `wrap` closed.

        Raises Unreadable.
        """
        with_it = self._locks.get(closed[:MARK])
        if with_it is None:
            raise Unreadable("closed with a key that is not known here")
        return unlock(with_it, closed[MARK:], about)

    def is_current(self, closed: bytes) -> bool:
        return closed[:MARK] == _mark(self.wrapping[0])

    @cached_property
    def _locks(self) -> dict[bytes, AESGCM]:
        return {_mark(key): AESGCM(key) for key in self.wrapping}


def _mark(key: bytes) -> bytes:
    return hashlib.sha256(b"hune wrapping\0" + key).digest()[:MARK]


def new_key() -> bytes:
    """A person's key."""
    return secrets.token_bytes(SIZE)


def lock(key: AESGCM, content: bytes, about: str) -> bytes:
    nonce = os.urandom(NONCE)
    return nonce + key.encrypt(nonce, content, about.encode())


def unlock(key: AESGCM, closed: bytes, about: str) -> bytes:
    try:
        return key.decrypt(closed[:NONCE], closed[NONCE:], about.encode())
    except (InvalidTag, ValueError):
        raise Unreadable("closed with another key, or damaged") from None


def load(env: Mapping[str, str] = os.environ) -> Keys | None:
    """The installation's keys; None where there are none, and so no vault.

    Raises Misconfigured when what is given is no key.
    """
    text = env.get(VARIABLE, "").strip()
    if text:
        return Keys.from_text(text, VARIABLE)
    name = env.get(FILE_VARIABLE, "").strip()
    if not name:
        return None
    try:
        return Keys.from_text(Path(name).read_text(), f"{FILE_VARIABLE} {name}")
    except FileNotFoundError:
        raise Misconfigured(f"{FILE_VARIABLE} names {name}, which does not exist; `hune vault key` makes one") from None
    except OSError as error:
        raise Misconfigured(f"{FILE_VARIABLE} {name} cannot be read: {error.strerror}") from None


def fields(env: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Names of fields that are personal besides those that always are."""
    return tuple(name.strip() for name in env.get(FIELDS_VARIABLE, "").split(",") if name.strip())


def write(path: Path, keys: Keys) -> None:
    """Write the file anew as a whole, for its owner alone."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(keys.text + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
