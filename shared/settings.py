"""Where things are: `HUNE_*` variables of the environment, the same for every service and the CLI."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from shared.errors import Misconfigured

DEFAULT_PARTITIONS = 12


@dataclass(frozen=True, slots=True)
class Settings:
    """Addresses and folders; what the business wants is in `config_dir`'s YAML files."""

    kafka_bootstrap_servers: str
    database_url: str
    database_urls: tuple[str, ...]
    config_dir: Path
    partitions: int = DEFAULT_PARTITIONS
    probes_port: int = 0
    probes_host: str = "127.0.0.1"
    gateway_host: str = "127.0.0.1"
    gateway_port: int = 8080
    dedupe_days: int = 0
    traces: bool = False

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Settings:
        """Read the settings.

        Raises Misconfigured that names the variable and an example of its value.
        """
        url = _required(env, "HUNE_DATABASE_URL", "postgresql://hune:secret@localhost:5432/hune")
        urls = tuple(part.strip() for part in env.get("HUNE_DATABASE_URLS", "").split(",") if part.strip())
        return cls(
            kafka_bootstrap_servers=_required(env, "HUNE_KAFKA_BOOTSTRAP_SERVERS", "localhost:9092"),
            database_url=url,
            database_urls=urls or (url,),
            config_dir=config_dir(env),
            partitions=_number(env, "HUNE_PARTITIONS", DEFAULT_PARTITIONS),
            probes_port=_number(env, "HUNE_PROBES_PORT", 0),
            probes_host=env.get("HUNE_PROBES_HOST", "").strip() or "127.0.0.1",
            gateway_host=env.get("HUNE_GATEWAY_HOST", "127.0.0.1"),
            gateway_port=_number(env, "HUNE_GATEWAY_PORT", 8080),
            dedupe_days=_number(env, "HUNE_DEDUPE_DAYS", 0),
            traces=bool(env.get("HUNE_TRACES", "").strip()),
        )


def config_dir(env: Mapping[str, str] = os.environ) -> Path:
    """The folder of the YAML files: HUNE_CONFIG_DIR, else the checkout's."""
    return Path(env.get("HUNE_CONFIG_DIR", Path(__file__).parent.parent / "config"))


def _required(env: Mapping[str, str], name: str, example: str) -> str:
    value = env.get(name, "").strip()
    if not value:
        raise Misconfigured(f"{name} is empty; try {example}")
    return value


def _number(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name, "").strip()
    if not text:
        return default
    if not text.isdigit():
        raise Misconfigured(f"{name} is {text!r}; it takes a whole number such as {default}")
    return int(text)
