"""The example company's customers: some two hundred invented accounts and eighteen months of what they did.

`events` tells the history up to the last midnight (UTC) before `until`, in time order; `live_events` what happens
"today". Both are functions of their arguments alone: the accounts depend on the seed only, their dates on `until`.

Stories that one can follow (`stories.py`; what to look at is in docs/demo.md):

 1. `menuiserie-vallombre`: a joinery of 20 people goes from a handful of users to 19 of 20 active (95 %), and its
    subscription grows by 40 %.
 2. `laboratoires-seranne`: the champion leaves; within two weeks half of the team has stopped.
 3. `harrowmere-freight`: says nothing, opens no ticket, and has not logged in for six weeks; notice ends soon.
 4. `cooperative-brisemont`: uses the product every day and complains of its price, in an NPS answer and on a call.
 5. a tracking break: for a week no `planner.mobile` event arrives from most accounts; nobody left. Best seen at
    `duinveste-techniek`, whose crews use little else.
 6. `falkenrode-logistik`: seven tickets in five days, two of them P1 and still open.
 7. `juniper-wake-outfitters`: a happy promoter who buys 30 % more.
 8. `groupe-ardelune`: a parent with three subsidiaries, of which one goes quiet.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any

from cli.company.calendars import Span
from cli.company.dealings import dealings, first_day, last_day
from cli.company.diary import Diary
from cli.company.population import population
from cli.company.stories import today, told
from cli.company.usage import usage

Event = dict[str, Any]


def events(seed: int, until: datetime, months: int = 18) -> Iterator[Event]:
    """The history as plain JSON events, oldest first; the same for the same arguments' day."""
    span = Span.until(until, months)
    pages: list[Event] = []
    for account in population(seed):
        diary = Diary(account.id, span)
        if last_day(account, diary) > first_day(account, diary):
            dealings(account, diary, seed)
            usage(account, diary, seed)
            told(account, diary, seed)
            pages += diary.pages
    pages.sort(key=itemgetter("timestamp", "id"))
    return iter(pages)


def live_events(seed: int, at: datetime) -> Iterator[Event]:
    """A few dozen events between the last midnight and `at`: what happens today."""
    return iter(sorted(today(population(seed), seed, at.astimezone(UTC)), key=itemgetter("timestamp", "id")))
