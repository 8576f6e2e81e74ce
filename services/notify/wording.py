"""The words of messages around what services say, in English and French."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal, InvalidOperation

from services.notify.settings import Language

_TEXTS: dict[str, dict[Language, str]] = {
    "score": {"en": "Score", "fr": "Score"},
    "arr": {"en": "ARR", "fr": "ARR"},
    "notice": {"en": "Notice deadline", "fr": "Échéance de préavis"},
    "segment": {"en": "Segment", "fr": "Segment"},
    "owner": {"en": "Owner", "fr": "Responsable"},
    "stage": {"en": "Stage", "fr": "Étape"},
    "touch": {"en": "Last two-way contact", "fr": "Dernier échange"},
    "measured": {"en": "Measured", "fr": "Mesuré"},
    "moved": {"en": "What moved it", "fr": "Ce qui a pesé"},
    "weighs": {"en": "What weighs on it", "fr": "Ce qui pèse"},
    "restore": {"en": "Smallest change that brings it to {score}", "fr": "Le plus petit pas pour revenir à {score}"},
    "to_points": {"en": "{label} {now} → {to} points", "fr": "{label} {now} → {to} points"},
    "cap": {"en": "held down by {cap}", "fr": "plafonné par {cap}"},
    "call": {"en": "Whom to call", "fr": "Qui appeler"},
    "sponsor": {"en": "sponsor", "fr": "sponsor"},
    "admin": {"en": "admin", "fr": "administration"},
    "billing": {"en": "billing", "fr": "facturation"},
    "user": {"en": "user", "fr": "utilisateur"},
    "other": {"en": "other", "fr": "autre"},
    "gone": {"en": "a deleted person", "fr": "une personne supprimée"},
    "evidence": {"en": "Evidence", "fr": "Constats"},
    "next": {"en": "Next", "fr": "À faire"},
    "rule": {"en": "rule {rule}", "fr": "règle {rule}"},
    "opened": {"en": "opened {at}", "fr": "ouverte le {at}"},
    "resolved": {"en": "over since {at}", "fr": "terminée le {at}"},
    "resolved.said": {"en": "Over: {title}", "fr": "Terminé : {title}"},
    "escalated.said": {"en": "Now {severity}: {title}", "fr": "Désormais {severity} : {title}"},
    "acknowledged": {"en": "acknowledged by {by}", "fr": "prise en charge par {by}"},
    "snoozed": {"en": "snoozed until {at}", "fr": "en pause jusqu'au {at}"},
    "hushed": {"en": "snoozed until it changes", "fr": "en pause jusqu'à un changement"},
    "reminded.said": {"en": "Still there: {title}", "fr": "Toujours là : {title}"},
    "by": {"en": "{at} by {by}", "fr": "{at} par {by}"},
    "via": {"en": "{what} ({channel})", "fr": "{what} ({channel})"},
    "in_days": {"en": "{day} (in {n} days)", "fr": "{day} (dans {n} jours)"},
    "today": {"en": "{day} (today)", "fr": "{day} (aujourd'hui)"},
    "days_ago": {"en": "{day} ({n} days ago)", "fr": "{day} (il y a {n} jours)"},
    "low": {"en": "low", "fr": "faible"},
    "medium": {"en": "medium", "fr": "moyenne"},
    "high": {"en": "high", "fr": "élevée"},
    "critical": {"en": "critical", "fr": "critique"},
    "red": {"en": "red", "fr": "rouge"},
    "amber": {"en": "amber", "fr": "orange"},
    "green": {"en": "green", "fr": "vert"},
    "unknown": {"en": "unknown", "fr": "inconnu"},
    "acknowledge": {"en": "Acknowledge", "fr": "Je m'en occupe"},
    "snooze": {"en": "Snooze 7 days", "fr": "Pause 7 jours"},
    "open": {"en": "Open", "fr": "Ouvrir"},
    "useful": {"en": "Useful", "fr": "Utile"},
    "useless": {"en": "Not useful", "fr": "Pas utile"},
    "digest": {"en": "{alerts} of {accounts}", "fr": "{alerts} sur {accounts}"},
    "alerts": {"en": "{n} alerts", "fr": "{n} alertes"},
    "alert": {"en": "{n} alert", "fr": "{n} alerte"},
    "accounts": {"en": "{n} accounts", "fr": "{n} comptes"},
    "account": {"en": "{n} account", "fr": "{n} compte"},
    "more": {
        "en": "… and {n} more accounts: ./hune export alerts",
        "fr": "… et {n} autres comptes : ./hune export alerts",
    },
    "again": {
        "en": "sent again: nobody knows whether the first attempt arrived",
        "fr": "renvoyé : nul ne sait si le premier envoi est arrivé",
    },
    "sample": {"en": "This is a sample from Hune", "fr": "Ceci est un exemple de Hune"},
    "people": {"en": "people who stopped", "fr": "personnes qui ont arrêté"},
    "people_stopped": {"en": "people who stopped (count)", "fr": "personnes qui ont arrêté (nombre)"},
    "quote": {"en": "quote", "fr": "citation"},
    "ticket_id": {"en": "ticket", "fr": "ticket"},
    "tickets": {"en": "tickets", "fr": "tickets"},
    "subject": {"en": "subject", "fr": "objet"},
    "user_id": {"en": "answered by", "fr": "réponse de"},
    "invoice_id": {"en": "invoice", "fr": "facture"},
    "contact_id": {"en": "contact", "fr": "contact"},
    "colon": {"en": ": ", "fr": " : "},
}  # fmt: skip


def text(name: str, language: Language, **values: object) -> str:
    return _TEXTS[name][language].format(**values)


def word(name: str, language: Language) -> str:
    """A name of ours in the reader's words; one that is not known stays as it is, with blanks."""
    return _TEXTS[name][language] if name in _TEXTS else name.replace("_", " ")


def label(name: str, value: str, language: Language) -> str:
    return f"{word(name, language)}{_TEXTS['colon'][language]}{value}"


def count(name: str, n: int, language: Language) -> str:
    return text(name if n == 1 else f"{name}s", language, n=n)


def moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} {at.tzname() or 'UTC'}"


def day_from(day: str, today: date, language: Language) -> str:
    """A day with how far away it is; text that is no day stays as it is."""
    try:
        n = (date.fromisoformat(day[:10]) - today).days
    except ValueError:
        return day
    if n == 0:
        return text("today", language, day=day)
    return text("in_days" if n > 0 else "days_ago", language, day=day, n=abs(n))


def money(amount: str, language: Language) -> str:
    try:
        shown = f"{Decimal(amount):,.0f}"
    except (InvalidOperation, ValueError):
        return amount
    return shown.replace(",", " " if language == "fr" else ",")


def points(value: float, language: Language) -> str:
    shown = f"{abs(value):.1f}"
    return f"{'+' if value > 0 else '−'}{shown.replace('.', ',') if language == 'fr' else shown}"


def percent(share: float, language: Language) -> str:
    return f"{share * 100:.0f}\N{NO-BREAK SPACE}%" if language == "fr" else f"{share * 100:.0f}%"
