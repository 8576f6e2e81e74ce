"""TLS to PostgreSQL: against a server of the system's where there is one, for the wheel's has none."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from devstack.ports import choose
from shared import db
from shared.db.migrate import migrate
from shared.errors import Misconfigured
from tests.support.secured import Authority

PASSWORD = "of-a-test"
BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
WITHOUT = "NOT TESTED: TLS to PostgreSQL; the system has no PostgreSQL server (Debian: apt install postgresql)"


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, Authority]]:
    """A server that takes connections by TLS only; as nobody where we are root, which PostgreSQL refuses to be."""
    if not BINARIES:
        pytest.skip(WITHOUT)
    folder = Path(tempfile.mkdtemp(prefix="hune-test-"))
    user = "nobody" if os.geteuid() == 0 else None
    authority, (port,) = Authority(folder), choose(1)
    certificate, key = authority.issue("database")
    secret = folder / "password"
    secret.write_text(PASSWORD)
    if user:
        folder.chmod(0o755)
        for path in (folder, key, secret):
            shutil.chown(path, user)
    data, binaries = folder / "data", BINARIES[-1].parent
    process = None
    try:
        subprocess.run(
            [binaries / "initdb", "-D", data, "-U", "hune", "--auth=scram-sha-256", f"--pwfile={secret}", "--no-sync"],
            user=user, env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}, capture_output=True, check=True,
        )  # fmt: skip
        hba = data / "pg_hba.conf"
        hba.write_text("hostssl all all 127.0.0.1/32 scram-sha-256\n")
        options = {
            "port": port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off", "ssl": "on",
            "ssl_cert_file": certificate, "ssl_key_file": key,
        }  # fmt: skip
        given = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [binaries / "postgres", "-D", data, *given],
                user=user,
                stdout=log,
                stderr=log,
                env={"LC_ALL": "C.UTF-8"},
            )
        deadline = time.monotonic() + 30
        while b"ready to accept connections" not in (folder / "log").read_bytes():
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, "PostgreSQL did not start within 30 s"
            time.sleep(0.05)
        yield f"postgresql://hune:{PASSWORD}@127.0.0.1:{port}/postgres", authority
    finally:
        if process is not None:
            process.terminate()
            process.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


async def test_the_address_says_tls_and_the_certificate_is_verified(server: tuple[str, Authority]) -> None:
    url, authority = server
    verified = f"{url}?sslmode=verify-full&sslrootcert={authority.file}"
    await migrate([verified], 2)
    pool = await db.create_pool(verified, 2, "tls")
    try:
        assert await pool.fetchval("select ssl from pg_stat_ssl where pid = pg_backend_pid()")
        assert await pool.fetchval("select partitions from hune.installation") == 2
    finally:
        await pool.close()


@pytest.mark.parametrize(
    ("mode", "says"),
    [
        ("sslmode=disable", "refuses 'hune'"),
        ("sslmode=verify-full&sslrootcert={other}", "certificate that does not hold"),
    ],
)
async def test_what_does_not_hold_is_said_clearly(
    server: tuple[str, Authority], tmp_path: Path, mode: str, says: str
) -> None:
    url, _ = server
    other = Authority(tmp_path).file
    with pytest.raises(Misconfigured, match=says) as refused:
        await db.connect(f"{url}?{mode.format(other=other)}")
    assert "HUNE_DATABASE_URL" in str(refused.value)
    assert PASSWORD not in str(refused.value)


async def test_a_server_without_tls_is_not_spoken_to_in_the_clear(postgres: str) -> None:
    with pytest.raises(Misconfigured, match=r"does not speak TLS; see sslmode in HUNE_DATABASE_URL"):
        await db.connect(f"{postgres}?sslmode=require")
