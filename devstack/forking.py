"""Run by `devstack.nursery` as a script: loads what all services share, then becomes one service after another by fork.

Reads a job per line from stdin, writes `born PID` and `ended PID CODE` lines to stdout, and ends with its stdin.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import runpy
import select
import signal
import sys
from typing import NamedTuple

_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class Job(NamedTuple):
    """What a child is to become: `python -m PACKAGE NAME` with this environment, its output to a log."""

    package: str
    name: str
    log: str
    env: dict[str, str]


def preload(package: str) -> None:
    """Import what the package says its programs share, and keep the collector away from it."""
    for module in getattr(importlib.import_module(package), "SHARED", ()):
        importlib.import_module(module)
    gc.collect()
    gc.freeze()


def deliver(answers: int) -> Job | None:
    """Fork for each job asked for; returns in a child with its job, in this process only when stdin ends."""
    woken, wakes = os.pipe()
    for end in (woken, wakes):
        os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(wakes)
    asked = b""
    while True:
        ready, _, _ = select.select([0, woken], [], [])
        if woken in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(woken, 4096)
            _tell_of_the_dead(answers)
        if 0 in ready:
            read = os.read(0, 1 << 20)
            if not read:
                return None
            *lines, asked = (asked + read).split(b"\n")
            for line in lines:
                job, parent = Job(*json.loads(line)), os.getpid()
                child = os.fork()
                if not child:
                    for end in (woken, wakes, answers):
                        os.close(end)
                    _become(job, parent)
                    return job
                _say(answers, f"born {child}")


def _tell_of_the_dead(answers: int) -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            _say(answers, f"ended {pid} {os.waitstatus_to_exitcode(status)}")


def _become(job: Job, parent: int) -> None:
    """In the child: a group, a log, an environment and a name of its own; it dies with its parent."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setpgid(0, 0)
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        _LIBC.prctl(_PR_SET_NAME, f"hune-{job.name}".encode())
    if os.getppid() != parent:
        os._exit(98)
    log, nothing = os.open(job.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666), os.open(os.devnull, os.O_RDONLY)
    for given, own in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(given, own)
    os.close(log)
    os.close(nothing)
    os.environ.clear()
    os.environ.update(job.env)


def _say(answers: int, line: str) -> None:
    os.write(answers, f"{line}\n".encode())


if __name__ == "__main__":
    sys.path.insert(0, os.getcwd())
    lines = os.dup(1)
    os.dup2(2, 1)  # what a library prints while it is loaded goes to the log
    preload(sys.argv[1])
    if (found := deliver(lines)) is not None:
        sys.argv = [found.package, found.name]
        runpy.run_module(found.package, run_name="__main__", alter_sys=True)
