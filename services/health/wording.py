"""The sentences people read, in English and French."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from services.health.scoring import Band, Part, Score
from services.health.settings import (
    Breadth,
    CoreActions,
    CoreUsers,
    Language,
    LastOutcome,
    LastTouch,
    Licences,
    Measure,
    Model,
    MrrTrend,
    Renewal,
    Sentiment,
    Stickiness,
    SurveyAnswers,
    TimeToSolve,
    UsageRecency,
    UsageTrend,
)
from services.health.shares import CAP, CONFIG, OVERRIDE, PROFILE, largest_first

MOST_CAUSES = 3
_BANDS: dict[Language, dict[Band, str]] = {
    "en": {"red": "red", "amber": "amber", "green": "green", "unknown": "unknown"},
    "fr": {"red": "rouge", "amber": "orange", "green": "vert", "unknown": "inconnu"},
}
_TEXTS: dict[str, dict[Language, str]] = {
    "fell": {"en": "Fell {by} to {score} ({band})", "fr": "Baisse de {by} à {score} ({band})"},
    "rose": {"en": "Rose {by} to {score} ({band})", "fr": "Hausse de {by} à {score} ({band})"},
    "same": {"en": "Stays at {score}, now {band}", "fr": "Reste à {score}, désormais {band}"},
    "first": {"en": "First score: {score} ({band})", "fr": "Premier score : {score} ({band})"},
    "back": {"en": "Enough is known again: {score} ({band})", "fr": "Données à nouveau suffisantes : {score} ({band})"},
    "unknown": {
        "en": "Too little is known for a score: {coverage} of the weight is measured",
        "fr": "Trop peu de données pour un score : {coverage} du poids est mesuré",
    },
    "point": {"en": "{n} point", "fr": "{n} point"},
    "points": {"en": "{n} points", "fr": "{n} points"},
    "missing": {"en": "not known", "fr": "inconnu"},
    "was": {"en": "{now} (was {before})", "fr": "{now} (avant : {before})"},
    "of_usual": {"en": "{n} of usual", "fr": "{n} de l'habitude"},
    "days_ago": {"en": "{n} days ago", "fr": "il y a {n} jours"},
    "in_days": {"en": "in {n} days", "fr": "dans {n} jours"},
    "hours": {"en": "{n} h", "fr": "{n} h"},
    "a_week": {"en": "{n} a week", "fr": "{n} par semaine"},
    "cap.on": {"en": "at most {at} now: {label}", "fr": "au plus {at} désormais : {label}"},
    "cap.off": {"en": "no longer at most {at}: {label}", "fr": "n'est plus limité à {at} : {label}"},
    "profile": {"en": "scored as {profile}", "fr": "évalué comme {profile}"},
    "config": {"en": "another configuration", "fr": "une autre configuration"},
    "override": {"en": "set by hand", "fr": "fixé à la main"},
    "score_below.title": {"en": "Health is red: {score}", "fr": "Santé au rouge : {score}"},
    "score_below.why": {"en": "Score {score}. {parts}", "fr": "Score {score}. {parts}"},
    "score_drop.title": {"en": "Health fell {by} points", "fr": "La santé a baissé de {by} points"},
    "score_drop.why": {
        "en": "From {high} within {days} days to {score}. {parts}",
        "fr": "De {high} en {days} jours à {score}. {parts}",
    },
    "score_unknown.title": {"en": "Health can no longer be told", "fr": "La santé ne peut plus être évaluée"},
    "score_unknown.why": {
        "en": "Only {coverage} of the weight is measured. Missing: {missing}",
        "fr": "Seulement {coverage} du poids est mesuré. Manquent : {missing}",
    },
    "ticket_open.title": {"en": "{severity} ticket open: {subject}", "fr": "Ticket {severity} ouvert : {subject}"},
    "ticket_open.why": {
        "en": "Ticket {ticket} ({severity}) is open since {since}",
        "fr": "Le ticket {ticket} ({severity}) est ouvert depuis le {since}",
    },
    "ticket_storm.title": {"en": "{n} tickets in {days} days", "fr": "{n} tickets en {days} jours"},
    "ticket_storm.why": {
        "en": "{n} tickets were opened in the last {days} days, {open} are open",
        "fr": "{n} tickets ouverts ces {days} derniers jours, {open} restent ouverts",
    },
    "detractor.title": {"en": "Detractor: NPS {score}", "fr": "Détracteur : NPS {score}"},
    "detractor.why": {"en": "Answered {score} on {day}{quote}", "fr": "A répondu {score} le {day}{quote}"},
    "promoter.title": {"en": "Promoter: NPS {score}", "fr": "Promoteur : NPS {score}"},
    "promoter.why": {"en": "Answered {score} on {day}{quote}", "fr": "A répondu {score} le {day}{quote}"},
    "usage_dip.title": {
        "en": "Use fell: {of} at {ratio} of usual",
        "fr": "Usage en baisse : {of} à {ratio} de l'habitude",
    },
    "usage_dip.why": {
        "en": "{n} {of} in the last {days} days, {baseline} were usual{stopped}",
        "fr": "{n} {of} ces {days} derniers jours, {baseline} d'habitude{stopped}",
    },
    "usage_growth.title": {
        "en": "Use grows: {of} at {ratio} of usual",
        "fr": "Usage en hausse : {of} à {ratio} de l'habitude",
    },
    "usage_growth.why": {
        "en": "{n} {of} in the last {days} days, {baseline} were usual",
        "fr": "{n} {of} ces {days} derniers jours, {baseline} d'habitude",
    },
    "resolved": {"en": "Over: {title}", "fr": "Terminé : {title}"},
    "stopped": {"en": "; {n} people stopped", "fr": " ; {n} personnes ont arrêté"},
    "silent.title": {"en": "No use for {n} days", "fr": "Aucun usage depuis {n} jours"},
    "silent.why": {"en": "Last used on {day}", "fr": "Dernier usage le {day}"},
    "payment_failed.title": {"en": "A payment failed", "fr": "Un paiement a échoué"},
    "payment_failed.why": {
        "en": "The payment of invoice {invoice}{amount} failed on {day}",
        "fr": "Le paiement de la facture {invoice}{amount} a échoué le {day}",
    },
    "sponsor_left.title": {"en": "The {role} left", "fr": "Le {role} est parti"},
    "sponsor_left.why": {
        "en": "Contact {contact} ({role}) left on {day}; {n} remain",
        "fr": "Le contact {contact} ({role}) est parti le {day} ; il en reste {n}",
    },
    "of.days": {"en": "active days", "fr": "jours actifs"},
    "of.users": {"en": "active users", "fr": "utilisateurs actifs"},
    "of.features": {"en": "features", "fr": "fonctions"},
    "of.events": {"en": "events", "fr": "événements"},
}  # fmt: skip


def text(name: str, language: Language, **values: object) -> str:
    return _TEXTS[name][language].format(**values)


def percent(share: float, language: Language) -> str:
    return f"{share * 100:.0f}\N{NO-BREAK SPACE}%" if language == "fr" else f"{share * 100:.0f}%"


def number(value: float, language: Language) -> str:
    shown = f"{value:.1f}".removesuffix(".0")
    return shown.replace(".", ",") if language == "fr" else shown


def signed(value: float, language: Language) -> str:
    """From -1 to 1 with its sign."""
    shown = f"{value:+.2f}".replace("-", "\N{MINUS SIGN}") if round(value, 2) else "0"
    return shown.replace(".", ",") if language == "fr" else shown


def value_of(measure: Measure | None, value: float | None, language: Language) -> str:
    """A measure's value in its own unit."""
    if value is None:
        return text("missing", language)
    match measure:
        case UsageTrend():
            return text("of_usual", language, n=percent(value, language))
        case Stickiness() | Breadth() | CoreUsers() | Licences() | MrrTrend():
            return percent(value, language)
        case CoreActions():
            return text("a_week", language, n=number(value, language))
        case TimeToSolve():
            return text("hours", language, n=number(value, language))
        case Renewal():
            return text("in_days", language, n=int(value))
        case UsageRecency() | LastTouch() | LastOutcome():
            return text("days_ago", language, n=int(value))
        case SurveyAnswers(of="csat"):
            return percent(value / 100, language)
        case Sentiment():
            return signed(value, language)
    return number(value, language)


def why_changed(
    before: Score | None, after: Score, shares: Mapping[str, float], model: Model, language: Language
) -> str:
    """One sentence: by how much, and the measures that moved it most."""
    band = _BANDS[language][after.band]
    if after.score is None:
        return text("unknown", language, coverage=percent(after.coverage, language))
    if before is None:
        return text("first", language, score=after.score, band=band)
    if before.score is None:
        return text("back", language, score=after.score, band=band)
    by = after.score - before.score
    if by == 0:
        head = text("same", language, score=after.score, band=band)
    else:
        points = text("point" if abs(by) == 1 else "points", language, n=abs(by))
        head = text("fell" if by < 0 else "rose", language, by=points, score=after.score, band=band)
    causes = [
        _cause(name, share, before, after, model, language)
        for name, share in largest_first(shares)[:MOST_CAUSES]
        if abs(share) >= 0.05
    ]
    colon = " : " if language == "fr" else ": "
    return head + (colon + ", ".join(causes) if causes else "")


def _cause(name: str, share: float, before: Score, after: Score, model: Model, language: Language) -> str:
    sign = "+" if share > 0 else "−"
    return f"{_what(name, before, after, model, language)} ({sign}{number(abs(share), language)})"


def _what(name: str, before: Score, after: Score, model: Model, language: Language) -> str:
    if name.startswith(CAP):
        return _of_cap(name.removeprefix(CAP), before, after, model, language)
    if name in (PROFILE, CONFIG, OVERRIDE):
        return text(name, language, profile=after.profile)
    old, new = _part(name, before), _part(name, after)
    measure = model.measures.get(name)
    now = value_of(measure, new.value if new else None, language)
    then = value_of(measure, old.value if old else None, language)
    said = now if now == then else text("was", language, now=now, before=then)
    return f"{_label(name, model, language)} {said}"


def _part(name: str, score: Score) -> Part | None:
    return next((part for part in score.parts if part.measure == name), None)


def _of_cap(name: str, before: Score, after: Score, model: Model, language: Language) -> str:
    held, holds = dict(before.caps), dict(after.caps)
    cap = model.caps.get(name)
    label = cap.label.to(language) if cap else name
    if name in holds:
        return text("cap.on", language, at=number(holds[name], language), label=label)
    return text("cap.off", language, at=number(held[name], language), label=label)


def weakest(parts: Sequence[Part], model: Model, language: Language) -> str:
    """The measures that cost the score most: weight × points lost."""
    costly = sorted(
        (part for part in parts if part.points is not None and part.points < 100),
        key=lambda part: (-part.weight * (100 - (part.points or 0)), part.measure),
    )
    return ", ".join(
        f"{_label(part.measure, model, language)} {value_of(model.measures.get(part.measure), part.value, language)}"
        for part in costly[:MOST_CAUSES]
    )


def missing(parts: Sequence[Part], model: Model, language: Language) -> str:
    return ", ".join(_label(part.measure, model, language) for part in parts if not part.measured)


def _label(name: str, model: Model, language: Language) -> str:
    measure = model.measures.get(name)
    return measure.label.to(language) if measure else name
