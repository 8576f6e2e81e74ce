"""Programs that start quickly: forks of one that has loaded what they share, and a JVM that remembers."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devstack import java, processes
from devstack.nursery import Nursery

PROGRAM = """
import os, signal, sys, time
import fractions_loaded_before
print(sys.argv[1:], os.environ["WORD"], sorted(os.environ) == ["WORD"], os.getpgid(0) == os.getpid())
print("an error", file=sys.stderr)
if sys.argv[1] == "sleeper":
    time.sleep(60)
sys.exit(int(os.environ["WORD"]))
"""


@pytest.fixture
def nursery(tmp_path: Path) -> Iterator[Nursery]:
    package = tmp_path / "root" / "programs"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('SHARED = ("fractions_loaded_before",)')
    (package / "__main__.py").write_text(PROGRAM)
    (package.parent / "fractions_loaded_before.py").write_text("print('loaded')")
    nursery = Nursery("programs", package.parent, tmp_path / "nursery.log")
    try:
        yield nursery
    finally:
        nursery.stop()


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_child_runs_the_program_with_its_own_environment_and_log(nursery: Nursery, tmp_path: Path) -> None:
    child = nursery.spawn("first", tmp_path / "first.log", {"WORD": "3"})
    other = nursery.spawn("other", tmp_path / "other.log", {"WORD": "0"})
    assert (child.wait(30), other.wait(30)) == (3, 0)
    assert (tmp_path / "first.log").read_text().splitlines() == ["['first'] 3 True True", "an error"]
    assert (tmp_path / "nursery.log").read_text() == "loaded\n", "what is shared is loaded once"


def test_a_killed_child_is_known_by_its_signal_and_the_others_go_on(nursery: Nursery, tmp_path: Path) -> None:
    one, two = (nursery.spawn("sleeper", tmp_path / f"{name}.log", {"WORD": "0"}) for name in "ab")
    assert one.poll() is None
    os.kill(one.pid, signal.SIGKILL)
    assert one.wait(30) == -signal.SIGKILL
    assert two.poll() is None
    two.send_signal(signal.SIGTERM)
    assert two.wait(30) == -signal.SIGTERM


def test_children_die_with_the_process_they_were_forked_from_and_it_starts_again(
    nursery: Nursery, tmp_path: Path
) -> None:
    child = nursery.spawn("sleeper", tmp_path / "a.log", {"WORD": "0"})
    parent = int(Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(parent, signal.SIGKILL)
    assert child.wait(30) == -signal.SIGKILL
    until(lambda: not processes.is_alive(child.pid, str(tmp_path)))
    assert nursery.spawn("next", tmp_path / "b.log", {"WORD": "4"}).wait(30) == 4


def test_an_archive_is_made_once_and_not_by_a_jvm_that_was_killed(tmp_path: Path) -> None:
    archive = java.Archive(tmp_path / "kafka-1.aot")
    (making,) = archive.use_or_make
    draft = Path(making.removeprefix("-XX:AOTCacheOutput="))
    draft.write_text("half")
    archive.keep(-signal.SIGKILL)
    assert not draft.exists()
    assert not archive.use
    draft.write_text("whole")
    archive.keep(143)
    assert archive.use == archive.use_or_make == (f"-XX:AOTCache={tmp_path / 'kafka-1.aot'}",)


def test_an_archive_nobody_used_for_a_month_goes_when_another_comes(tmp_path: Path) -> None:
    old, recent, archive = tmp_path / "kafka-0.aot", tmp_path / "kafka-2.aot", java.Archive(tmp_path / "kafka-1.aot")
    for each in (old, recent):
        each.write_text("")
    os.utime(old, (0, 0))
    Path(archive.use_or_make[0].partition("=")[2]).write_text("")
    archive.keep(143)
    assert sorted(tmp_path.iterdir()) == [archive.path, recent]


def test_an_older_jvm_and_a_folder_that_cannot_be_written_go_without(tmp_path: Path) -> None:
    home = tmp_path / "jvm"
    (home / "bin").mkdir(parents=True)
    (home / "bin" / "java").touch()
    (jar := tmp_path / "one.jar").touch()
    assert java.archive_of(home / "bin" / "java", str(jar), tmp_path).path is None
    (home / "release").write_text('JAVA_VERSION="21.0.1"\n')
    assert java.archive_of(home / "bin" / "java", str(jar), tmp_path).path is None
    (home / "release").write_text('JAVA_VERSION="25.0.2"\n')
    made_for = java.archive_of(home / "bin" / "java", str(jar), tmp_path)
    assert made_for.path is not None
    jar.write_text("another")
    assert java.archive_of(home / "bin" / "java", str(jar), tmp_path) != made_for
    assert java.archive_of(home / "bin" / "java", str(jar), tmp_path / "absent").path is None
