"""Apache Kafka as the pinned list of its jars, fetched once into the cache."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from devstack.errors import StackError

LIST = Path(__file__).with_name("kafka-jars.json")
MEGABYTES = 43
Report = Callable[[int, int, float], None]


@dataclass(frozen=True, slots=True)
class Jar:
    """One jar of the list, by its Maven coordinates and the hash of its bytes."""

    group: str
    artifact: str
    version: str
    sha256: str

    def path(self, cache: Path) -> Path:
        folder = cache.joinpath(*self.group.split("."), self.artifact, self.version)
        return folder / f"{self.artifact}-{self.version}.jar"


def cache_folder() -> Path:
    """Where packages and jars are kept, apart from any home's data."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hune"


def listed(pins: Path = LIST) -> list[Jar]:
    return [Jar(**entry) for entry in json.loads(pins.read_text())]


def ensure(report: Report | None = None, cache: Path | None = None, pins: Path = LIST) -> str:
    """Return the class path of a list, Kafka's; fetch what the cache lacks or holds with other bytes.

    `report` is told (jars there, jars in all, MB fetched) as they arrive.
    """
    cache = cache or cache_folder() / "maven"
    jars = listed(pins)
    with ThreadPoolExecutor(os.cpu_count() or 2) as pool:
        absent = [
            jar for jar, good in zip(jars, pool.map(lambda jar: _is_good(jar, cache), jars), strict=True) if not good
        ]
    if absent:
        _fetch(absent, len(jars), cache, report)
    return ":".join(str(jar.path(cache)) for jar in jars)


def _is_good(jar: Jar, cache: Path) -> bool:
    path = jar.path(cache)
    return path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == jar.sha256


def _fetch(absent: list[Jar], total: int, cache: Path, report: Report | None) -> None:
    """Fetch beside the cache and move in only what has the right hash: a killed run leaves no half jar."""
    import requests
    from jgo.maven import MavenContext

    lock = Lock()
    there, megabytes = total - len(absent), 0.0

    def fetch(jar: Jar, beside: Path) -> None:
        nonlocal there, megabytes
        maven.project(jar.group, jar.artifact).at_version(jar.version).artifact().resolve()
        if not _is_good(jar, beside):
            raise StackError(
                f"{jar.path(beside).name} from Maven Central has another sha256 than the list of jars says"
            )
        target = jar.path(cache)
        target.parent.mkdir(parents=True, exist_ok=True)
        jar.path(beside).replace(target)
        with lock:
            there += 1
            megabytes += target.stat().st_size / 1e6
            if report is not None:
                report(there, total, megabytes)

    try:
        cache.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix="fetch-", dir=cache.parent))
        try:
            maven = MavenContext(repo_cache=beside, local_repos=[], timeout=60)
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(lambda jar: fetch(jar, beside), absent))
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    except (requests.RequestException, RuntimeError, OSError) as error:
        if "No space left" in str(error):
            raise StackError(f"the disk of {cache} is full; Kafka's jars need {MEGABYTES} MB there") from error
        reason = type(error).__name__ if isinstance(error, requests.RequestException) else str(error)[:160]
        raise StackError(
            f"Kafka's jars ({MEGABYTES} MB, once) cannot be fetched from Maven Central ({reason}); "
            "connect this machine, or set HUNE_KAFKA_BOOTSTRAP_SERVERS to a Kafka of yours"
        ) from error
