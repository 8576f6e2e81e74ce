"""`python -m shared.contract [--check]` writes what `docs/` says of the contract, or says what is stale."""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from pathlib import Path

from shared.contract import asyncapi, flow, schemas
from shared.contract.channels import routing
from shared.contract.compatibility import breaks
from shared.events import InputEvent, model_of

ROOT = Path(__file__).parents[2]
EVENTS = Path("docs/schemas")
CONFIGURATION = EVENTS / "config"


def documents() -> dict[Path, str]:
    """Every generated file, by its path in the repository."""
    routes, version = routing(), tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    found = {EVENTS / f"{wire_type}.json": _json(schema) for wire_type, schema in schemas.events().items()}
    found |= {CONFIGURATION / f"{name}.json": _json(schema) for name, schema in schemas.configuration().items()}
    return found | {
        Path("docs/asyncapi.yaml"): asyncapi.document(routes, version),
        Path("docs/flow.md"): flow.page(routes),
    }


def _json(schema: schemas.Schema) -> str:
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def stale(wanted: dict[Path, str]) -> list[Path]:
    """What is missing, out of date, or belongs to nothing any more."""
    old = [path for path, text in wanted.items() if not (ROOT / path).exists() or (ROOT / path).read_text() != text]
    return sorted([*old, *left_over(wanted)])


def left_over(wanted: dict[Path, str]) -> list[Path]:
    there = [path.relative_to(ROOT) for path in (ROOT / EVENTS).rglob("*.json")]
    return [path for path in there if path not in wanted]


def incompatible(published: dict[str, str]) -> list[str]:
    """Why today's events do not take the place of published schemas (wire type → text)."""
    now, problems = schemas.events(), []
    for wire_type, text in sorted(published.items()):
        if wire_type not in now:
            problems.append(f"{wire_type}: removed")
            continue
        written = not issubclass(model_of(wire_type), InputEvent)
        found = breaks(json.loads(text), now[wire_type], written=written)
        problems += [f"{wire_type}: {problem}" for problem in found]
    return problems


def on_disk() -> dict[str, str]:
    return {path.stem: path.read_text() for path in (ROOT / EVENTS).glob("*.json")}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m shared.contract", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file is stale")
    parser.add_argument(
        "--unreleased", action="store_true", help="let an event break what docs/schemas says: no release has it yet"
    )
    options = parser.parse_args(arguments)
    broken, wanted = incompatible(on_disk()), documents()
    if broken and not options.unreleased:
        print("\n".join(broken), file=sys.stderr)
        print("make it a v2 beside the v1, or give --unreleased if no release has this event yet", file=sys.stderr)
        return 1
    changed = stale(wanted)
    for path in changed:
        if options.check:
            print(f"stale: {path}")
        elif path in wanted:
            (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / path).write_text(wanted[path])
            print(f"wrote {path}")
        else:
            (ROOT / path).unlink()
            print(f"deleted {path}")
    return 1 if options.check and changed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
