"""A feature is recommended for a reason, once, and only while the reason holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.health import facts, guidance, guiding, telling
from services.health.domain import Memory
from services.health.episodes import Episode
from services.health.facts import Facts
from services.health.guidance import Counted, Own, Peers, Standing, Turn, Where
from services.health.policy import load_policy
from services.health.settings import Adopted, Guidance, Language, Model
from services.health.tracking import Break
from services.health.usage import hash_of
from shared import config
from shared.errors import Misconfigured
from shared.requests import Unusable
from tests.unit.test_health_config import MEASURE
from tests.unit.test_health_scoring import T, known, learnt
from tests.unit.test_health_usage import USES, UseAt, used

RULES = Guidance()
POLICY = load_policy()
DAY = timedelta(days=1)
NAMES = ("search", "export", "share", "board")
AGE = 400


def where(at: Any = T, segment: str | None = "mid", language: Language = "en", baseline: bool = False) -> Where:
    return Where("acme", at, segment, language, f"acme:{at.isoformat()}", baseline)


def own(*entitled: str, used: tuple[str, ...] = (), age: int | None = AGE, **said: Any) -> Own:
    return Own(frozenset(entitled), frozenset(used), age, **said)


def turn(
    own: Own, peers: Mapping[str, Peers] | None, standing: Standing | None = None, rules: Guidance | None = RULES,
    at: Where | None = None,
) -> Turn:  # fmt: skip
    return guidance.decide(own, peers, standing or Standing(seen=True), rules, at or where())


def made(**said: Any) -> Standing:
    """A standing with `export` recommended."""
    return turn(own("export", **said), {"export": Peers(21, 18)}).standing


def names(found: Turn) -> list[str]:
    return [one.feature for one in found.made]


@pytest.mark.parametrize(
    ("language", "why", "step"),
    [
        (
            "en",
            "18 of 21 other green accounts of segment mid that are entitled to export use it; this one is entitled "
            "too, and nobody here has used it in 90 days",
            "Show them export: 18 of 21 other green accounts of segment mid use it, nobody here has in 90 days.",
        ),
        (
            "fr",
            "18 des 21 autres comptes au vert du segment mid ayant droit à export l'utilisent ; celui-ci y a droit "
            "aussi, et personne ne s'en est servi en 90 jours",
            "Présentez-leur export : 18 des 21 autres comptes au vert du segment mid l'utilisent, personne ici en "
            "90 jours.",
        ),
    ],
)
def test_the_reason_has_the_numbers_in_both_languages(language: Language, why: str, step: str) -> None:
    [one] = turn(own("export"), {"export": Peers(21, 18)}, at=where(language=language)).made
    assert (one.why, one.next_step) == (why, step)


def test_five_of_five_do_not_beat_ninety_five_of_a_hundred() -> None:
    assert Peers(100, 95).share_low > Peers(5, 5).share_low
    found = turn(own("few", "many"), {"few": Peers(5, 5), "many": Peers(100, 95)})
    assert names(found) == ["many", "few"]


def test_the_lower_end_is_wilsons() -> None:
    """Wilson's 95 % interval of 81 of 263 begins at 0.2553 (Newcombe 1998, table I); of 0 of 20 at 0."""
    assert Peers(263, 81).share_low == pytest.approx(0.2553, abs=5e-5)
    assert Peers(20, 0).share_low == 0


@pytest.mark.parametrize(
    ("account", "peers"),
    [
        (own("export", used=("export",)), Peers(21, 18)),
        (own("search"), Peers(21, 18)),
        (own("export"), Peers(4, 4)),
        (own("export"), Peers(21, 10)),
        (own("export", age=29), Peers(21, 18)),
        (own("export", age=None), Peers(21, 18)),
        (own("export", broken=frozenset({"export"})), Peers(21, 18)),
    ],
    ids=["used", "not entitled", "too few peers", "too few use it", "too new", "nobody uses anything", "broken"],
)
def test_nothing_is_recommended_where_a_reason_is_missing(account: Own, peers: Peers) -> None:
    assert turn(account, {"export": peers}).made == ()


def test_no_more_are_open_than_the_rules_allow_and_what_is_told_stays() -> None:
    peers = {name: Peers(20, 20 - n) for n, name in enumerate(NAMES)}
    first = turn(own(*NAMES), peers, rules=Guidance(most_open=2))
    assert names(first) == ["search", "export"]
    again = turn(own(*NAMES), peers | {"board": Peers(99, 99)}, first.standing, Guidance(most_open=2))
    assert (again.made, again.ended, again.standing) == ((), (), first.standing)


def test_a_feature_is_adopted_with_its_second_day_of_use() -> None:
    standing = made()
    assert turn(own("export", used=("export",), since={"export": 1}), {}, standing).ended == ()
    [end] = turn(own("export", used=("export",), since={"export": 2}), {}, standing).ended
    assert (end.became, end.days_used) == ("adopted", 2)


@pytest.mark.parametrize(
    ("account", "peers", "at", "reason"),
    [
        (own(), {}, T, "not_entitled"),
        (own("export", before=frozenset({"export"})), {}, T, "used_before"),
        (own("export"), {"export": Peers(21, 7)}, T, "peers_left"),
        (own("export"), {}, T + 180 * DAY, "expired"),
    ],
)
def test_a_recommendation_is_withdrawn_when_it_holds_no_longer(
    account: Own, peers: dict[str, Peers], at: Any, reason: str
) -> None:
    [end] = turn(account, peers, made(), at=where(at)).ended
    assert (end.became, end.reason) == ("withdrawn", reason)


def test_between_the_two_shares_it_neither_opens_nor_ends() -> None:
    peers = {"export": Peers(20, 8)}
    assert turn(own("export"), peers).made == ()
    assert turn(own("export"), peers, made()).ended == ()


def test_while_nothing_is_counted_nothing_is_made_and_what_is_open_stays() -> None:
    standing = made()
    found = turn(own("export", "search"), None, standing)
    assert (found.made, found.ended, found.standing) == ((), (), standing)


def test_switched_off_all_is_withdrawn_and_rests_are_kept() -> None:
    dismissed = guidance.dismiss(made(), "export", RULES, T, "ann", None)
    assert dismissed is not None
    off = turn(own("export"), {}, dismissed.standing, None)
    assert off.standing.resting == dismissed.standing.resting
    [end] = turn(own("export"), {}, made(), None).ended
    assert end.reason == "switched_off"


def test_the_first_comparison_is_a_baseline_and_so_is_what_a_run_brings() -> None:
    peers = {"export": Peers(21, 18)}
    assert turn(own("export"), peers, Standing()).made[0].baseline
    assert turn(own("export"), peers, at=where(baseline=True)).made[0].baseline
    assert not turn(own("export"), peers).made[0].baseline


def test_what_is_dismissed_comes_again_only_after_its_rest() -> None:
    found = guidance.dismiss(made(), "export", RULES, T, "ann", "not for them")
    assert found is not None
    [end] = found.ended
    assert (end.became, end.by, end.note, end.until) == ("dismissed", "ann", "not for them", T + 90 * DAY)
    peers = {"export": Peers(21, 18)}
    assert turn(own("export"), peers, found.standing, at=where(T + 89 * DAY)).made == ()
    assert names(turn(own("export"), peers, found.standing, at=where(T + 90 * DAY))) == ["export"]


def test_an_account_is_not_its_own_peer() -> None:
    counts = {"export": Peers(6, 2), "search": Peers(6, 6), "alone": Peers(1, 0)}
    mine = Counted("mid", "green", ("alone", "export", "search"), ("search",))
    assert guidance.without(counts, mine, "mid") == {"export": Peers(5, 2), "search": Peers(5, 5)}
    assert guidance.without(counts, replace(mine, band="amber"), "mid") == counts
    assert guidance.without(counts, replace(mine, segment="smb"), "mid") == counts
    assert guidance.without(counts, None, "mid") == counts


# -- what an account uses


def entitled(*features: str, days_ago: float = 300, id: str = "e1", **said: Any) -> Any:
    return learnt("entitlement.changed", id, days_ago, account_id="acme", product="p", features=list(features), **said)


def reading(found: Facts, standing: Standing = guidance.NOTHING, rules: Guidance = RULES) -> Own:
    return guidance.own_of(found, facts.picture(found, T), standing, rules)


@settings(deadline=None)
@given(USES, st.randoms(), st.integers(1, 4), st.integers(1, 150))
def test_use_is_that_of_the_plain_definition_in_any_order_and_split(
    uses: list[UseAt], rng: Any, cuts: int, window: int
) -> None:
    shuffled = list(uses)
    rng.shuffle(shuffled)
    found = known(entitled("search", "export", "never"))
    for part in range(cuts):
        if some := shuffled[part::cuts]:
            found = found.with_usage(used(*some))
    rules = Guidance(window_days=window, adopted=Adopted(days=1, within_days=1))
    told = reading(found, rules=rules)
    recent = {feature for at, _, feature in uses if T.date() - window * DAY <= at.date() and at <= T}
    assert told.used == recent & {"search", "export"}
    assert told.entitled == {"search", "export", "never"}
    past = [at for at, _, _ in uses if at <= T]
    in_window = any(at.date() >= T.date() - window * DAY for at in past)
    assert told.age_days == ((T.date() - min(past).date()).days if in_window else None)


def test_use_since_and_before_is_told_apart_by_the_moment_of_the_recommendation() -> None:
    [one] = turn(own("export"), {"export": Peers(21, 18)}, at=where(T - 20 * DAY)).made
    standing = Standing((one,), seen=True)
    later = [(T - days * DAY, "ann", "export") for days in (19, 3, 3, 1)]
    assert reading(known(entitled("export"), uses=later), standing).since == {"export": 3}
    assert not reading(known(entitled("export"), uses=later), standing).before
    late = [(T - 40 * DAY, "ann", "export")]
    assert reading(known(entitled("export"), uses=late), standing).before == {"export"}
    recent, long_ago = (T - 3 * DAY, "ann", "export"), (T - 115 * DAY, "ann", "export")
    assert not reading(known(entitled("export"), uses=[long_ago, recent]), standing).before


def test_a_feature_whose_tracking_is_broken_is_not_missed() -> None:
    broken = Break("feature", "export", T.date() - 3 * DAY)
    over = Break("feature", "export", T.date() - 9 * DAY, T.date() - 3 * DAY)
    assert reading(known(entitled("export")).under((broken,))).broken == {"export"}
    assert reading(known(entitled("export")).under((over,))).broken == frozenset()


def test_an_entitlement_that_ended_entitles_to_nothing() -> None:
    ended = known(entitled("export"), entitled(days_ago=2, id="e2", seats=0))
    assert reading(ended).entitled == frozenset()


# -- any story


DAYS = st.lists(
    st.tuples(
        st.integers(1, 40),
        st.frozensets(st.sampled_from(NAMES)),
        st.frozensets(st.sampled_from(NAMES)),
        st.dictionaries(st.sampled_from(NAMES), st.tuples(st.integers(1, 40), st.floats(0, 1)), max_size=4) | st.none(),
        st.sampled_from([None, *NAMES]),
    ),
    max_size=25,
)


@settings(deadline=None, max_examples=200)
@given(DAYS, st.integers(1, 3), st.randoms())
def test_in_any_story_recommendations_are_few_apt_and_not_repeated(story: list[Any], most: int, rng: Any) -> None:
    rules = Guidance(most_open=most)
    standing, at = Standing(), T
    dismissed: dict[str, Any] = {}
    seen: set[str] = set()
    for days, has, uses, counts, unwanted in story:
        at += days * DAY
        mine = Own(has, uses & has, AGE, since={one.feature: 2 * (one.feature in uses) for one in standing.open})
        peers = None if counts is None else {name: Peers(n, round(n * share)) for name, (n, share) in counts.items()}
        found = guidance.decide(mine, peers, standing, rules, where(at))
        mixed = None if peers is None else dict(rng.sample(list(peers.items()), len(peers)))
        assert guidance.decide(mine, mixed, standing, rules, where(at)) == found, "the order of counts is of no matter"
        assert len(found.standing.open) <= max(most, len(standing.open))
        assert len(found.standing.open) <= most
        before = {one.recommendation_id for one in standing.open}
        fresh = {one.recommendation_id for one in found.made}
        over = {end.recommendation.recommendation_id for end in found.ended}
        assert over <= before
        assert {one.recommendation_id for one in found.standing.open} == (before - over) | fresh
        assert not fresh & seen
        seen |= fresh
        for one in found.made:
            assert peers is not None
            assert one.feature in has
            assert one.feature not in uses
            assert peers[one.feature].entitled >= rules.green_peers
            assert peers[one.feature].share >= rules.share
            assert one.feature not in dismissed or at >= dismissed[one.feature] + rules.cooldown_days * DAY
        assert len({one.feature for one in found.standing.open}) == len(found.standing.open)
        standing = found.standing
        if unwanted and (gone := guidance.dismiss(standing, unwanted, rules, at, None, None)):
            standing, dismissed[unwanted] = gone.standing, at
        again = guidance.decide(replace(mine, since={}), peers, standing, rules, where(at))
        assert len(again.standing.open) <= most


# -- by request, and where it is shown


def test_a_dismissal_names_what_it_takes_off() -> None:
    memory = Memory(guidance=made())
    [one] = memory.guidance.open
    for asked in ({"feature": "export"}, {"recommendation_id": one.recommendation_id}):
        said = guiding.dismiss(guiding.read(asked, "ann"), memory, POLICY, "acme", T)
        assert (said.feature, said.turn is not None) == ("export", True)
    assert said.turn is not None
    after = replace(memory, guidance=said.turn.standing)
    again = guiding.dismiss(guiding.read({"feature": "export"}, None), after, POLICY, "acme", T + DAY)
    assert (again.turn, again.recommendation_id, again.until) == (None, one.recommendation_id, T + 90 * DAY)
    with pytest.raises(Unusable, match=r"'search' is not recommended to account 'acme'; recommended is: export"):
        guiding.dismiss(guiding.read({"feature": "search"}, None), memory, POLICY, "acme", T)
    with pytest.raises(Unusable, match="takes recommendation_id or feature"):
        guiding.read({}, None)
    with pytest.raises(Unusable, match="note"):
        guiding.read({"feature": "export", "note": 7}, None)


def test_an_alert_comes_before_a_recommendation_as_the_next_step() -> None:
    def alert(severity: Any, step: str | None, **said: Any) -> Episode:
        return Episode(f"a-{step}", "r", "", "risk", severity, "t", "w", step, {}, T, False, **said)

    memory = Memory(guidance=made())
    assert (telling.next_step(memory) or "").startswith("Show them export")
    assert telling.next_step(replace(memory, open=(alert("low", "call"), alert("high", "meet")))) == "meet"
    quiet = (alert("low", None), alert("high", "meet", snoozed=True))
    assert (telling.next_step(replace(memory, open=quiet)) or "").startswith("Show them export")
    assert telling.next_step(Memory()) is None


def test_the_window_of_guidance_is_part_of_what_has_to_be_known() -> None:
    model = config.parse(MEASURE.format(kind="usage_recency", weight="1", worst="30"), Model).model
    assert model.history_days < 90
    wide = model.model_copy(update={"guidance": Guidance(window_days=200)})
    assert wide.history_days == 200


@pytest.mark.parametrize(
    ("said", "field", "why"),
    [
        ("{share: 0.3, leave_share: 0.5}", "guidance", "leave_share 0.5 is above share 0.3"),
        ("{green_peers: 1}", "guidance.green_peers", "greater than or equal to 2"),
        ("{window_days: 20}", "guidance", "adopted looks back 30 days and window_days is 20"),
        ("{adopted: {days: 9, within_days: 7}}", "guidance.adopted", "only 7 days"),
        ("{most: 3}", "guidance.most", "Extra inputs"),
    ],
)
def test_a_wrong_rule_is_named_with_its_field(said: str, field: str, why: str) -> None:
    text = MEASURE.format(kind="usage_recency", weight="1", worst="30") + f"guidance: {said}\n"
    with pytest.raises(Misconfigured) as refused:
        config.parse(text, Model)
    assert f": {field}: " in str(refused.value)
    assert why in str(refused.value)


def test_names_are_compared_as_events_write_them() -> None:
    found = known(entitled("export"), uses=[(T - DAY, "ann", "Export")])
    assert reading(found).used == frozenset()
    assert hash_of("export") != hash_of("Export")
