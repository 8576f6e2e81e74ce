"""`hune notify test` without a network: what it shows, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli.notify import command


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "notify.yaml").write_text(
        "channels: {cs: {slack: C0123456789, language: fr}}\nwrite_back: {crm: {tool: hubspot, secret: CRM}}\n"
        "outreach: {care: {tool: customerio, secret: CIO, send: event, template: x, when: {event: touchpoint.due}}}\n"
    )
    monkeypatch.setenv("HUNE_CONFIG_DIR", str(tmp_path))
    return tmp_path


def test_a_dry_run_prints_the_sample_in_the_channels_language(folder: Path) -> None:
    done = CliRunner().invoke(command, ["test", "--channel", "cs", "--dry-run"])
    assert done.exit_code == 0, done.output
    assert "Qui appeler" in json.dumps(json.loads(done.output), ensure_ascii=False)


def test_a_write_back_is_not_tried_with_a_sample(folder: Path) -> None:
    done = CliRunner().invoke(command, ["test", "--channel", "crm"])
    assert (done.exit_code, "--dry-run" in done.output) == (2, True)


def test_a_message_to_a_customer_is_tried_on_somebody_who_is_named(folder: Path) -> None:
    for some in ([], ["--account", "acme"], ["--person", "me"]):
        done = CliRunner().invoke(command, ["test", "--channel", "care", *some])
        assert (done.exit_code, "--person or --dry-run" in done.output) == (2, True)
    done = CliRunner().invoke(command, ["test", "--channel", "crm", "--person", "me"])
    assert (done.exit_code, "no outreach" in done.output) == (2, True)


def test_only_a_write_back_has_accounts(folder: Path) -> None:
    done = CliRunner().invoke(command, ["test", "--channel", "cs", "--account", "acme"])
    assert (done.exit_code, "no write-back" in done.output) == (2, True)
