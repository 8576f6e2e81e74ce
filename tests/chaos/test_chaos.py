"""Kills, freezes, outages and lies at random and at chosen places: nothing is lost, nothing counts twice.

`HUNE_CHAOS_SEED` repeats a run. `./hune test chaos --tier release` is the same at full size: it keeps its progress
under `HUNE_CHAOS_HOME` (an interrupted run goes on), begins no round after `HUNE_CHAOS_HOURS`, and writes
`docs/benchmarks/chaos-release.md` however it ends.
"""

from __future__ import annotations

import math
import os
import random
import shutil
from pathlib import Path

import pytest

from tests.support import chaos_report
from tests.support.chaos_outage import Outages
from tests.support.chaos_run import QUICK, RELEASE, Run, unproven
from tests.support.stack import temporary_home

TIER = os.environ.get("HUNE_CHAOS_TIER", "quick")


def a_seed() -> int:
    return int(os.environ.get("HUNE_CHAOS_SEED") or random.SystemRandom().randrange(1_000_000))


def a_lasting_home() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = Path(os.environ.get("HUNE_CHAOS_HOME") or cache / "hune" / "chaos")
    home.mkdir(parents=True, exist_ok=True)
    return home


@pytest.mark.skipif(TIER != "quick", reason="the release tier is asked for")
async def test_nothing_is_lost_and_nothing_counts_twice_whatever_dies(capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled(), temporary_home() as home:
        progress = await Run(QUICK, a_seed(), home).all()
        print(f"  {dict(progress.proof)}")
        assert unproven(progress, QUICK) == []


@pytest.mark.skipif(TIER != "release", reason="a thousand faults take hours: --tier release")
async def test_a_thousand_faults_over_a_million_events(capsys: pytest.CaptureFixture[str]) -> None:
    home = a_lasting_home()
    run = Run(RELEASE, a_seed(), home, float(os.environ.get("HUNE_CHAOS_HOURS") or math.inf))
    with capsys.disabled():
        try:
            await run.all()
        finally:
            missing = unproven(run.progress, RELEASE)
            chaos_report.write(run.progress, RELEASE, missing)
        assert missing == []
        assert run.progress.finished == RELEASE.rounds, f"cut after {run.progress.finished} rounds: run it again"
    shutil.rmtree(home)


@pytest.mark.skipif(TIER != "release", reason="a store is away for long: --tier release")
async def test_a_store_is_away_for_minutes_and_nothing_is_lost(capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled(), temporary_home() as home:
        run = Outages(float(os.environ.get("HUNE_CHAOS_OUTAGE_S") or 600), a_seed(), home)
        progress = await run.all()
        print(f"  {dict(progress.happened)} {dict(progress.proof)}")
        assert progress.finished == progress.looks[-1] == len(progress.happened)
