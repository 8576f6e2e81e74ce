"""What happens at the accounts with a story, and what happens today."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from cli.company.dealings import contact_id, contract, money, ticket
from cli.company.diary import Diary
from cli.company.population import Account, users
from cli.company.usage import BREAK_DAYS, BROKEN_FEATURE

Event = dict[str, Any]
NOON = 12 * 3600
USES_TODAY = 24


def told(account: Account, diary: Diary, seed: int) -> None:
    """Add what belongs to the account's story."""
    teller = TELLERS.get(account.id)
    if teller:
        teller(account, diary, seed)


def _joinery_grows(account: Account, diary: Diary, seed: int) -> None:
    ago = diary.span.index
    _answer(account, diary, seed, 200, 0, 8, "Bon outil, mais seuls les chefs d'équipe s'en servent pour l'instant.")
    diary.write(ago(100), NOON, "training.held", training_id="S-vallombre-ateliers")
    diary.write(ago(101), NOON, "touchpoint.logged", channel="visit", two_way=True, person_id=account.csm,
                note="Visite de l'atelier : ils veulent équiper tous les poseurs de l'application mobile.")  # fmt: skip
    _expand(account, diary, 24, 0.4, "O-vallombre")
    _answer(account, diary, seed, 6, 0, 10,
            "Toute l'équipe s'y est mise en un mois. Un vrai gain de temps, je recommande.")  # fmt: skip
    diary.write(ago(5), NOON, "outcome.verified", objective="Heures de chantier saisies le jour même",
                value="12.5", unit="hours a week", verified_by=users(account, seed)[0].id)  # fmt: skip


def _champion_leaves(account: Account, diary: Diary, seed: int) -> None:
    champion = contact_id(account, seed, "champion")
    _answer(account, diary, seed, 95, 1, 9, "Nos contrôles qualité passent tous par Flow, excellent outil.")
    diary.write(diary.span.index(37), NOON, "message.received", message_id="M-seranne-depart", channel="email",
                contact_id=champion, text="Je quitte les Laboratoires Séranne à la fin de la semaine. "
                "Mon remplacement n'est pas encore décidé.")  # fmt: skip
    diary.write(diary.span.index(33), NOON, "contact.changed", contact_id=champion, role="champion", status="left")


def _goes_silent(account: Account, diary: Diary, seed: int) -> None:
    _answer(account, diary, seed, 190, 2, 8, "Does the job.")


def _finds_it_dear(account: Account, diary: Diary, seed: int) -> None:
    ago = diary.span.index
    _answer(account, diary, seed, 210, 0, 9, "Très bon outil, les équipes l'utilisent tous les jours.")
    diary.write(ago(21), NOON, "message.received", message_id="M-brisemont-tarif", channel="email",
                text="L'augmentation de tarif annoncée (12 %) est trop élevée pour nous. Que pouvez-vous faire ?",
                )  # fmt: skip
    diary.write(ago(16), NOON, "call.held", call_id="P-brisemont-tarif", person_id=account.csm, duration_s=1860,
                text="Le directeur trouve le prix trop élevé et compare avec deux concurrents. "
                "L'outil plaît toujours aux équipes.", language="fr")  # fmt: skip
    _answer(account, diary, seed, 9, 0, 4,
            "L'outil est bon, mais le tarif est devenu trop cher pour nous. Nous regardons ailleurs.")  # fmt: skip
    diary.write(ago(8), NOON, "opportunity.changed", opportunity_id="O-brisemont-renouvellement", kind="renewal",
                stage="negotiation", amount="46000.00", currency="EUR")  # fmt: skip


def _tracking_breaks(account: Account, diary: Diary, seed: int) -> None:
    began, ended = max(BREAK_DAYS), min(BREAK_DAYS)
    incident = "I-mobile-events"
    diary.write(diary.span.index(began) + 4, NOON, "incident.opened", named=False, incident_id=incident,
                features=[BROKEN_FEATURE], title="Mobile app 4.2 sends no usage events")  # fmt: skip
    diary.write(diary.span.index(ended) + 1, 4 * 3600, "incident.resolved", named=False, incident_id=incident)
    _answer(account, diary, seed, 60, 3, 9, "Our crews live in the mobile app.")


def _tickets_storm(account: Account, diary: Diary, seed: int) -> None:
    rng = random.Random(f"{seed}/{account.id}/storm")
    people = users(account, seed)
    for ago, severity, stays in ((5, "p2", False), (4, "p1", False), (4, "p2", True), (3, "p3", True), (2, "p1", True),
                                 (2, "p2", True), (1, "p1", True)):  # fmt: skip
        ticket(account, diary, rng, diary.span.index(ago), rng.choice(people), severity=severity, stays_open=stays,
               second=8 * 3600 + rng.randrange(6 * 3600))  # fmt: skip


def _promoter_expands(account: Account, diary: Diary, seed: int) -> None:
    _answer(account, diary, seed, 180, 0, 9, "The dashboards alone are worth the price.")
    diary.write(diary.span.index(70), NOON, "opportunity.changed", opportunity_id="O-juniper", kind="expansion",
                stage="proposal", amount=money(account.arr * 0.3), currency="EUR")  # fmt: skip
    _expand(account, diary, 18, 0.3, "O-juniper")
    _answer(account, diary, seed, 7, 0, 10,
            "Best decision of the year. Saves us hours every week, happy to be a reference.")  # fmt: skip


TELLERS: dict[str, Callable[[Account, Diary, int], None]] = {
    "menuiserie-vallombre": _joinery_grows,
    "laboratoires-seranne": _champion_leaves,
    "harrowmere-freight": _goes_silent,
    "cooperative-brisemont": _finds_it_dear,
    "duinveste-techniek": _tracking_breaks,
    "falkenrode-logistik": _tickets_storm,
    "juniper-wake-outfitters": _promoter_expands,
}


def _answer(account: Account, diary: Diary, seed: int, ago: int, user: int, score: int, comment: str) -> None:
    who = users(account, seed)[user].id
    diary.write(diary.span.index(ago), NOON + 600, "survey.answered", user_id=who, kind="nps", score=score,
                answer_id=f"A-{account.id}-{ago}", comment=comment, language=account.words)  # fmt: skip


def _expand(account: Account, diary: Diary, ago: int, share: float, opportunity: str) -> None:
    day = diary.span.index(ago)
    arr = account.arr * (1 + share)
    diary.write(day, NOON, "opportunity.changed", opportunity_id=opportunity, kind="expansion", stage="won", won=True,
                amount=money(arr - account.arr), currency="EUR")  # fmt: skip
    diary.write(day, NOON + 60, "subscription.changed", mrr=money(arr / 12), currency="EUR", seats=account.seats)
    term = diary.span.index(account.starts_ago - 365)
    contract(account, diary, day, term, arr / 12)


def today(accounts: Sequence[Account], seed: int, at: datetime) -> list[Event]:
    """Events between the last midnight and `at`."""
    rng = random.Random(f"{seed}/{at:%Y-%m-%d}/today")
    begins = datetime.combine(at.date(), datetime.min.time(), at.tzinfo)
    span_s = max(1, int((at - max(begins, at - timedelta(hours=6))).total_seconds()))
    written: list[Event] = []

    def note(account: Account, type_: str, **fields: Any) -> None:
        when = at - timedelta(seconds=rng.randrange(span_s))
        written.append({"id": f"today-{at:%Y%m%dT%H%M%S}-{len(written) + 1}", "type": type_, "account_id": account.id,
                        "timestamp": when.strftime("%Y-%m-%dT%H:%M:%SZ"), **fields})  # fmt: skip

    business = [one for one in accounts if one.model == "b2b" and not one.is_story and one.starts_ago > 120]
    steady = [one for one in business if one.course in ("steady", "growing")]
    high = [one for one in steady if one.tier == "high" and not one.parent_id]
    mid = [one for one in steady if one.tier == "mid"]
    for account in rng.sample([*high, *mid], USES_TODAY // 2):
        for user in rng.choices(users(account, seed), k=2):
            note(account, "usage.tracked", user_id=user.id, feature=user.features[0],
                 product=user.features[0].partition(".")[0])  # fmt: skip
    down, cross, broke, glad = high[0], mid[0], mid[1], mid[2]
    french = down.words == "fr"
    note(down, "ticket.opened", ticket_id=f"T-{down.id}-{at:%y%m%d}", user_id=users(down, seed)[0].id, severity="p1",
         subject="Plus aucune validation ne part" if french else "Approvals are stuck for everybody",
         text="Depuis ce matin les validations restent bloquées, toute l'équipe attend." if french else
         "Since this morning no approval goes out, the whole team is waiting.",
         product_area=down.products[0], language=down.words)  # fmt: skip
    french = cross.words == "fr"
    note(cross, "survey.answered", user_id=users(cross, seed)[1].id, kind="nps", score=3,
         answer_id=f"A-{cross.id}-{at:%y%m%d}", language=cross.words,
         comment="Trois jours sans réponse du support et l'export plante toujours. Très déçu." if french else
         "Three days without an answer from support and the export still crashes. Very disappointed.")  # fmt: skip
    note(broke, "invoice.failed", invoice_id=f"F-{broke.id}-{at:%y%m%d}", amount=money(broke.arr / 4), currency="EUR",
         attempt=1)  # fmt: skip
    french = glad.words == "fr"
    note(glad, "survey.answered", user_id=users(glad, seed)[0].id, kind="nps", score=10,
         answer_id=f"A-{glad.id}-{at:%y%m%d}", language=glad.words,
         comment="Deux heures gagnées par semaine, toute l'équipe l'a adopté." if french else
         "Two hours saved every week, the whole team is on board.")  # fmt: skip
    note(high[1], "contact.changed", contact_id=contact_id(high[1], seed, "sponsor"), role="sponsor", status="left")
    return written
