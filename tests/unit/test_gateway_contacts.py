"""What a gateway does with personal values: references on, values to the vault, over an outage of its tables too."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from services.gateway.canonical import Canonical, Record, record_of
from services.gateway.contacts import JOURNAL, Contacts, is_gone
from services.gateway.spool import NotDurable
from shared.vault import store
from shared.vault.keys import Keys
from shared.vault.sealing import Contact

pytestmark = pytest.mark.asyncio

NOW = datetime(2026, 6, 2, tzinfo=UTC)
KEYS = Keys(b"r" * 32, (b"w" * 32,))
ADA, PHONE = "ada@acme.example", "+44 20 7946 0958"


class Databases:
    """A control database that may be away, and keeps what it is given."""

    def __init__(self, away: bool = False) -> None:
        self.away, self.kept, self.deletions = away, list[tuple[Contact, datetime]](), 0

    async def open(self) -> None:
        if self.away:
            raise ConnectionRefusedError

    @property
    def control(self) -> Any:
        return self

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Databases]:
        await self.open()
        yield self


@pytest.fixture(autouse=True)
def tables(monkeypatch: pytest.MonkeyPatch) -> None:
    async def save(db: Databases, keys: Keys, seen: Sequence[tuple[Contact, datetime]]) -> None:
        db.kept += seen

    async def mark(db: Databases) -> int:
        return db.deletions

    monkeypatch.setattr(store, "save", save)
    monkeypatch.setattr(store, "forgotten_mark", mark)


def a_record(type: str = "user.identified", user: str = "u1", **body: Any) -> Record:
    return record_of(Canonical(type, "m1", {"user_id": user, **body}, user, NOW, None))


def files_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


def identified(user: str = "u1") -> Record:
    return a_record(user=user, traits={"email": ADA, "phone": PHONE, "plan": "pro"})


async def test_records_go_on_with_references_and_all_else_unchanged() -> None:
    plain = a_record("usage.tracked", event="Export", properties={"rows": 3}, context={"library": {"name": "n"}})
    vault = Contacts(KEYS, Databases(), None)
    (same, sealed), found = vault.seal([plain, identified()])
    assert same is plain
    assert ADA.encode() not in sealed.value
    assert PHONE.encode() not in sealed.value
    assert sealed.headers == identified().headers
    assert msgspec.json.decode(sealed.value)["traits"]["plan"] == "pro"
    assert {contact.value for contact in found} == {ADA, PHONE}
    assert vault.seal([plain]) == ([plain], [])


async def test_what_is_kept_is_not_kept_again_until_somebody_was_deleted() -> None:
    databases = Databases()
    vault = Contacts(KEYS, databases, None)
    _, found = vault.seal([identified()])
    await vault.keep(found, NOW)
    assert {contact.value for contact, _ in databases.kept} == {ADA, PHONE}
    _, again = vault.seal([identified()])
    assert again == []
    databases.deletions = 1
    await vault.look()
    _, anew = vault.seal([identified()])
    assert set(anew) == set(found)


async def test_without_its_tables_and_without_a_spool_nothing_is_confirmed() -> None:
    vault = Contacts(KEYS, Databases(away=True), None)
    with pytest.raises(NotDurable, match="vault"):
        await vault.keep(vault.seal([identified()])[1], NOW)
    await vault.keep([], NOW)


async def test_over_an_outage_contacts_wait_encrypted_on_the_disk(tmp_path: Path) -> None:
    databases = Databases(away=True)
    vault = Contacts(KEYS, databases, tmp_path)
    for user in ("delighted:77", "u2", ADA):
        await vault.keep(vault.seal([identified(user)])[1], NOW)
    (file,) = files_in(tmp_path)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert not [word for word in (ADA, PHONE, "delighted:77") if word.encode() in file.read_bytes()]
    databases.away = False
    successor = Contacts(KEYS, databases, tmp_path)  # after a kill
    await successor.look()
    assert {(contact.person.partition("@")[0][:3], contact.value) for contact, _ in databases.kept} == {
        ("del", ADA), ("del", PHONE), ("u2", ADA), ("u2", PHONE), ("hv_", ADA), ("hv_", PHONE),
    }  # fmt: skip
    assert {at for _, at in databases.kept} == {NOW}
    assert files_in(tmp_path) == []


async def test_a_torn_line_costs_itself_alone(tmp_path: Path) -> None:
    databases = Databases(away=True)
    vault = Contacts(KEYS, databases, tmp_path)
    await vault.keep(vault.seal([identified("u1")])[1], NOW)
    with (tmp_path / JOURNAL).open("ab") as file:
        file.write(b"half of a li")
    await vault.keep(vault.seal([identified("u2")])[1], NOW)
    databases.away = False
    await vault.look()
    assert {contact.person for contact, _ in databases.kept} == {"u1", "u2"}


async def test_what_the_tables_do_not_take_stays_on_the_disk(tmp_path: Path) -> None:
    databases = Databases(away=True)
    vault = Contacts(KEYS, databases, tmp_path)
    await vault.keep(vault.seal([identified()])[1], NOW)
    with pytest.raises(ConnectionRefusedError):
        await vault.look()
    assert [file.name for file in files_in(tmp_path)] == [JOURNAL]


async def test_a_suppressed_person_s_contacts_are_known() -> None:
    gone = frozenset({hashlib.sha256(b"u1").digest()})
    assert is_gone(Contact("u1", "t", "email", ADA), gone)
    assert not is_gone(Contact("u2", "t", "email", ADA), gone)
