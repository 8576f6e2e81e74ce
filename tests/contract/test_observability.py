"""Alert rules, dashboard and runbooks speak of metrics that there are, and of each other."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.__main__ import NAMES
from tests.contract.test_reference import metrics
from tests.support.repository import ROOT, text_of

ALERTS, SCRAPE = Path("deploy/prometheus/alerts.yml"), Path("deploy/prometheus/prometheus.yml")
RULES: list[dict[str, Any]] = [rule for group in yaml.safe_load(text_of(ALERTS))["groups"] for rule in group["rules"]]
DASHBOARD: dict[str, Any] = json.loads(text_of(Path("deploy/grafana/hune.json")))
RUNBOOKS = Path("docs/runbooks")
OF_EVERY_PROCESS = ("up", "process_resident_memory_bytes", "process_cpu_seconds_total")
OF_EVERY_SERIES = {"job", "instance"}
WORDS = {"by", "and", "unless", "sum", "max", "rate", "increase", "delta", "deriv", "scalar", "histogram_quantile"}


def panels() -> Iterator[tuple[str, str]]:
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]


EXPRESSIONS = [*((rule["alert"], rule["expr"]) for rule in RULES), *panels()]


def exposed() -> dict[str, set[str]]:
    """Every series by its name, with its labels."""
    found: dict[str, set[str]] = {name: set() for name in OF_EVERY_PROCESS}
    for name, (kind, labels) in metrics().items():
        if kind == "histogram":
            found |= {f"{name}_{part}": set(labels) for part in ("sum", "count")}
            found[f"{name}_bucket"] = {*labels, "le"}
        else:
            found[name] = set(labels)
    return found


SERIES = exposed()


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS, ids=[where for where, _ in EXPRESSIONS])
def test_an_expression_names_series_and_labels_that_there_are(where: str, expression: str) -> None:
    bare = re.sub(r'"[^"]*"|\[[^\]]*\]', "", expression)
    labels = {label for group in re.findall(r"by \(([^)]*)\)", bare) for label in re.split(r", *", group)}
    labels |= {label for group in re.findall(r"\{([^}]*)\}", bare) for label in re.findall(r"(\w+) *[=!]", group)}
    named = set(re.findall(r"[a-z_]{2,}", re.sub(r"by \([^)]*\)|\{[^}]*\}", "", bare))) - WORDS
    assert named - set(SERIES) == set()
    assert named
    assert labels - OF_EVERY_SERIES <= set().union(*(SERIES[name] for name in named))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_how_urgent_it_is_and_has_its_page(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert rule["annotations"]["summary"]
    page = Path(rule["annotations"]["runbook"])
    assert page.parent == RUNBOOKS
    assert f"Alert `{rule['alert']}` ({rule['labels']['severity']})" in text_of(page)
    assert f"[{page.stem.replace('-', ' ')}]({page.name})" in text_of(RUNBOOKS / "README.md")


def test_every_page_belongs_to_an_alert() -> None:
    pages = {path.relative_to(ROOT) for path in (ROOT / RUNBOOKS).glob("*.md")} - {RUNBOOKS / "README.md"}
    assert pages == {Path(rule["annotations"]["runbook"]) for rule in RULES}
    assert len({rule["alert"] for rule in RULES}) == len(RULES)


def test_every_metric_of_ours_is_shown_or_watched() -> None:
    text = " ".join(expression for _, expression in EXPRESSIONS)
    assert {name for name in metrics() if name not in text} == set()


def test_every_service_is_scraped() -> None:
    (job,) = yaml.safe_load(text_of(SCRAPE))["scrape_configs"]
    (found,) = job["dns_sd_configs"]
    assert job["job_name"] == "hune"
    assert set(found["names"]) == set(NAMES)


def test_panels_have_places_of_their_own() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    taken = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    assert len(set(taken)) == len(taken)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in DASHBOARD["panels"])


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not here")
def test_prometheus_takes_the_rules() -> None:
    done = subprocess.run(
        ["promtool", "check", "config", SCRAPE], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
