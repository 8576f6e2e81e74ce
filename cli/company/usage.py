"""Who used what on which day: habits by weekday, thinned by holidays and by the account's course."""

from __future__ import annotations

import random

from cli.company.calendars import OFFSETS, openness
from cli.company.diary import LAST_SECOND, Diary
from cli.company.population import Account, User, users

HABIT = 0.93
SECOND_USE = 0.06
FORECAST_SINCE = 150
"""How long ago `insight.forecast` came out."""
BREAK_DAYS = range(6, 15)
"""Days ago on which the mobile app told nothing."""
BROKEN_FEATURE = "planner.mobile"
BROKEN_SHARE = 0.85
UNNAMED_USES = 3
"""How often somebody new is seen before we are told whose they are."""


def level(account: Account, ago: int) -> float:
    """The share of an account's people who are at work, so many days ago."""
    turn = account.turn_ago
    many = account.people >= 8
    match account.course:
        case "fading":
            floor = 0.12 if many else 0.2
            return 1.0 if ago >= turn else max(floor, floor + (1 - floor) * (ago - 34) / (turn - 34))
        case "dropped":
            return 1.0 if ago >= turn else 0.3 if account.id == "laboratoires-seranne" else 0.05
        case "silent":
            return 1.0 if ago >= turn else 0.0
        case "churned":
            return _leaving(ago - turn)
        case "unhappy":
            return 1.0 if ago >= 125 else max(0.18 if many else 0.35, (ago - 25) / 100)
        case "unused":
            return 0.0
    return 1.0


def _leaving(left: int) -> float:
    """So many days before the end; notice comes 45 days before it, when most have long stopped."""
    if left < 0:
        return 0.0
    return 0.05 + left / 400 if left < 100 else min(0.3 + (left - 100) / 100, 1.0)


def is_broken(account: Account, seed: int) -> bool:
    """Whether the app of this customer's people was among those that fell silent."""
    return account.id == "duinveste-techniek" or random.Random(f"{seed}/{account.id}/app").random() < BROKEN_SHARE


def usage(account: Account, diary: Diary, seed: int) -> None:
    """Write down every use by everybody of the account, and who they are."""
    rng = random.Random(f"{seed}/{account.id}/usage")
    broken = is_broken(account, seed)
    open_days = openness(diary.span, account.country, account.model == "b2b")
    days, first_weekday = diary.span.days, diary.span.first.weekday()
    levels = [level(account, days - day) for day in range(days)]
    for user in users(account, seed):
        start = max(0, diary.span.index(user.joins_ago))
        unnamed = UNNAMED_USES if account.course == "new" else 0
        if not unnamed and account.course != "unused":
            identify(diary, user, start, 5 * 3600 + rng.randrange(3600))
        for day in range(start, days):
            if (first_weekday + day) % 7 not in user.weekdays:
                continue
            chance = open_days[day] * HABIT * _share(levels[day], user.rank, account.people)
            while rng.random() < chance:
                feature = _feature(rng, user, days - day)
                second = _second(rng, account)
                if unnamed:
                    diary.write(day, second, "usage.tracked", named=False, user_id=user.id, feature=feature)
                    unnamed -= 1
                    if not unnamed:
                        identify(diary, user, day, LAST_SECOND)
                elif not (broken and feature == BROKEN_FEATURE and days - day in BREAK_DAYS):
                    diary.use(day, second, user.id, feature, feature.partition(".")[0])
                chance = SECOND_USE
        if unnamed:
            identify(diary, user, days - 1, LAST_SECOND)


def identify(diary: Diary, user: User, day: int, second: float) -> None:
    diary.write(day, second, "user.identified", user_id=user.id, traits={"name": user.name})


def _share(level: float, rank: float, people: int) -> float:
    """How likely somebody still works: with several people some stop, with few all do less."""
    if people < 4:
        return level
    return 1.0 if rank < level else 0.04 * (level > 0)


def _feature(rng: random.Random, user: User, ago: int) -> str:
    feature = user.features[int(rng.random() ** 2 * len(user.features))]
    return user.features[0] if feature == "insight.forecast" and ago > FORECAST_SINCE else feature


def _second(rng: random.Random, account: Account) -> float:
    """In UTC, within the account's working day (an evening for private people)."""
    low, high, mode = (8.0, 18.0, 10.5) if account.model == "b2b" else (7.5, 18.5, 18.0)
    return 3600 * max(0.0, rng.triangular(low, high, mode) - OFFSETS[account.country])
