"""Python programs that start in a tenth of a second: forks of one process that has loaded what they share.

Each program takes its own two seconds of processor time to load the same libraries; together they would keep a
small machine busy for a quarter of a minute, and each restart would wait as long.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from devstack import processes
from devstack.errors import StackError

PATIENCE = 60.0
POLL_EVERY = 0.02
_LOST = -signal.SIGKILL
"""What became of children whose nursery died: the kernel killed them with it."""


class Child:
    """A program that was forked, with what `subprocess.Popen` offers of it."""

    def __init__(self, pid: int, nursery: Nursery) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._nursery = nursery

    def poll(self) -> int | None:
        self._nursery.hear(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
            time.sleep(POLL_EVERY)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Nursery:
    """Forks `python -m PACKAGE NAME` from a process that runs in `root` and has imported `PACKAGE.SHARED`.

    The children die with that process, and it dies with this one; it starts again when it is needed.
    """

    def __init__(self, package: str, root: Path, log: Path) -> None:
        self._package, self._root, self._log = package, root, log
        self._process: subprocess.Popen[bytes] | None = None
        self._children: dict[int, Child] = {}
        self._born: list[Child] = []
        self._heard = b""

    def start(self) -> None:
        """Begin to load, in the background. Call it from a thread that lives as long as this process."""
        self._heard, self._born = b"", []
        with processes.open_log(self._log) as log:
            self._process = processes.spawn(
                [sys.executable, "-u", "-P", Path(__file__).with_name("forking.py"), self._package],
                log=log,
                talks=True,
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # who forks has one thread
                cwd=self._root,
                last_signal=signal.SIGKILL,
            )

    def spawn(self, name: str, log: Path, env: Mapping[str, str]) -> Child:
        """Raises StackError when there is no child in a minute."""
        processes.open_log(log).close()
        if self._process is None or self._process.poll() is not None:
            self.hear(0)
            self.start()
        assert self._process is not None
        assert self._process.stdin is not None
        job = [self._package, name, str(log.absolute()), dict(env)]
        try:
            self._process.stdin.write(json.dumps(job).encode() + b"\n")
            self._process.stdin.flush()
            deadline = time.monotonic() + PATIENCE
            while not self._born and time.monotonic() < deadline and self.hear(1.0):
                pass
        except OSError as error:
            raise self._failed(name) from error
        if not self._born:
            raise self._failed(name)
        return self._born.pop(0)

    def hear(self, patience: float) -> bool:
        """Take in what the process has told; False once it is gone, and its children with it."""
        if self._process is None or self._process.stdout is None:
            return False
        source = self._process.stdout.fileno()
        while select.select([source], [], [], patience)[0]:
            read = os.read(source, 1 << 16)
            if not read:
                for child in self._children.values():
                    child.returncode = _LOST
                self._children.clear()
                return False
            patience = 0
            *lines, self._heard = (self._heard + read).split(b"\n")
            for line in lines:
                what, pid, *code = line.split()
                if what == b"born":
                    child = self._children[int(pid)] = Child(int(pid), self)
                    self._born.append(child)
                else:
                    self._children.pop(int(pid)).returncode = int(code[0])
        return True

    def stop(self) -> None:
        """End it; children that still run are killed."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            processes.stop(self._process)
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def _failed(self, name: str) -> StackError:
        return StackError(f"{name} could not be started: {processes.tail(self._log) or 'no word'}; see {self._log}")
