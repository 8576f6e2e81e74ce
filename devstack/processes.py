"""Children that die with us, stop in order and may not be root."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from devstack.errors import StackError

LOG_LIMIT = 10 * 1024 * 1024
NOBODY = 65534
_PR_SET_PDEATHSIG = 1
_CLONE_NEWUSER = 0x10000000
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def spawn(
    command: Sequence[str | Path],
    *,
    log: IO[bytes] | int,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    last_signal: int = signal.SIGTERM,
    talks: bool = False,
    become: Callable[[], None] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a child in a process group of its own that gets `last_signal` when this process dies.

    The kernel ties that signal to the calling thread: call this from a thread that lives as long as we do.
    One that `talks` has pipes for its stdin and stdout, and only its errors go to the log.
    `become` runs in the child first and may change who it is.
    """
    parent = os.getpid()

    def prepare() -> None:
        if become is not None:
            become()
        if _LIBC is not None:  # after `become`: a change of user clears it
            _LIBC.prctl(_PR_SET_PDEATHSIG, last_signal)
        if os.getppid() not in (parent, 0):
            os._exit(98)

    return subprocess.Popen(
        [str(part) for part in command],
        stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
        stdout=subprocess.PIPE if talks else log,
        stderr=log if talks else subprocess.STDOUT,
        env=None if env is None else dict(env),
        cwd=cwd,
        process_group=0,
        preexec_fn=prepare,
    )


def open_log(path: Path) -> IO[bytes]:
    """Open a log for appending; one over the limit becomes `NAME.1` first."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size > LOG_LIMIT:
            path.replace(path.with_name(path.name + ".1"))
        return path.open("ab")
    except OSError as error:
        raise StackError(f"{path} cannot be written: {error.strerror}; set HUNE_HOME to another folder") from error


def tail(path: Path, lines: int = 3) -> str:
    """The last lines of a log, for an error message."""
    if not path.exists():
        return ""
    with path.open("rb") as log:
        log.seek(max(0, path.stat().st_size - 4096))
        text = log.read().decode(errors="replace")
    return " / ".join(line.strip() for line in text.splitlines()[-lines:] if line.strip())


def stop(process: subprocess.Popen[bytes], polite: int = signal.SIGTERM, grace: float = 10.0) -> int:
    """Ask a child to end, insist after `grace` seconds, and return its exit code."""
    if process.poll() is None:
        process.send_signal(polite)
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


def is_alive(pid: int, belongs: str) -> bool:
    """Whether `pid` runs and its command line or working folder mentions `belongs`."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        folder = os.readlink(f"/proc/{pid}/cwd")
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z" and (belongs in command or belongs in folder)


def outlast(pid: int, belongs: str, polite: int, grace: float = 15.0) -> None:
    """Wait for a child that an earlier, killed run left dying; end it when it does not."""
    deadline = time.monotonic() + grace
    asked = False
    while is_alive(pid, belongs):
        if not asked:
            os.kill(pid, polite)
            asked = True
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            deadline += grace
        time.sleep(0.05)


def leave_root_by_namespace() -> None:
    """In the child: a user namespace in which root is `nobody`; files stay root's outside."""
    user, group = os.geteuid(), os.getegid()
    if _LIBC is None or _LIBC.unshare(_CLONE_NEWUSER):
        os._exit(97)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{NOBODY} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{NOBODY} {group} 1")


def leave_root_for_nobody() -> None:
    """In the child: become `nobody` for good."""
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


def namespaces_work() -> bool:
    """Whether the kernel lets us make a user namespace (a chroot and some containers refuse)."""
    try:
        return subprocess.run(["true"], preexec_fn=leave_root_by_namespace, check=False).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False
