"""`python -m services NAME` runs one service."""

from __future__ import annotations

import gc
import importlib
import sys

from shared.errors import Misconfigured
from shared.settings import Settings

NAMES = ("gateway", "router", "health", "feedback", "qbr", "ops", "voc", "notify")


def spare_the_collector() -> None:
    """What is loaded now stays: never look at it again. A batch makes tens of thousands of objects that die with it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0] not in NAMES:
        print(f"usage: python -m services {{{'|'.join(NAMES)}}}", file=sys.stderr)
        return 2
    app = importlib.import_module(f"services.{arguments[0]}.app")
    try:
        if hasattr(app, "main"):
            app.main()
        else:
            from shared.runtime.process import serve

            worker = app.build()
            spare_the_collector()
            serve(worker, Settings.from_env())
    except Misconfigured as error:
        print(f"{arguments[0]}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
