import ast
import importlib.machinery
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

LAUNCHER = Path(__file__).parents[2] / "hune"


@pytest.fixture
def launcher(tmp_path: Path) -> ModuleType:
    """The launcher as a module that believes to live in `tmp_path`."""
    loader = importlib.machinery.SourceFileLoader("hune_launcher", str(LAUNCHER))
    spec = importlib.util.spec_from_loader("hune_launcher", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    module.ROOT = str(tmp_path)  # type: ignore[attr-defined]
    module.LOCK = str(tmp_path / "requirements.lock")  # type: ignore[attr-defined]
    module.STAMP = str(tmp_path / "hune.stamp")  # type: ignore[attr-defined]
    module.PYTHON = sys.executable  # type: ignore[attr-defined]
    (tmp_path / "requirements.lock").write_text("click==8.1\n")
    return module


def test_an_old_python_can_read_the_launcher_to_be_told_so() -> None:
    ast.parse(LAUNCHER.read_text(), feature_version=(3, 8))


def test_the_launcher_needs_nothing_but_the_standard_library() -> None:
    tree = ast.parse(LAUNCHER.read_text())
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert {name.split(".")[0] for name in imported} <= sys.stdlib_module_names


def test_a_changed_lock_is_installed_again(launcher: ModuleType, tmp_path: Path) -> None:
    assert not launcher.is_installed()
    Path(launcher.STAMP).write_text(launcher.wanted_stamp())
    assert launcher.is_installed()
    (tmp_path / "requirements.lock").write_text("click==8.2\n")
    assert not launcher.is_installed()


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        (["ERROR: Could not install packages: [Errno 28] No space left on device"], "is full"),
        (["WARNING: Retrying: NewConnectionError('Temporary failure in name resolution')"], "cannot be reached"),
        (["ERROR: THESE PACKAGES DO NOT MATCH THE HASHES"], "DO NOT MATCH THE HASHES"),
    ],
)
def test_what_pip_stumbled_over_is_one_sentence(launcher: ModuleType, output: list[str], sentence: str) -> None:
    told = launcher.why_pip_failed(output)
    assert sentence in told
    assert "\n" not in told
