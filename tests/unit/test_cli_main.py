import click
import pytest
from click.testing import CliRunner

from cli import main
from cli.main import COMMANDS, Entry, group
from shared.errors import PipelineError


def test_every_command_of_this_build_can_be_called() -> None:
    context = click.Context(group)
    for name in group.list_commands(context):
        assert isinstance(group.get_command(context, name), click.Command), name


def test_a_command_that_this_build_lacks_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COMMANDS, "absent", Entry("cli.absent", "not here"))
    shown = CliRunner().invoke(group, ["--help"])
    assert shown.exit_code == 0
    assert "status" in shown.output
    assert "absent" not in shown.output
    assert CliRunner().invoke(group, ["absent"]).exit_code == 2


def test_what_the_world_gets_wrong_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(**_: object) -> None:
        raise PipelineError("the disk is full")

    monkeypatch.setattr(main, "group", refuse)
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "hune: the disk is full\n"
