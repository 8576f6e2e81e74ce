"""Sentences about what people did and what alerts say, in English and French."""

from __future__ import annotations

from services.health.settings import Language

_TEXTS: dict[str, dict[Language, str]] = {
    "closed": {"en": "Closed by {by}: {title}", "fr": "Clos par {by} : {title}"},
    "closed_by_nobody": {"en": "Closed by request: {title}", "fr": "Clos sur demande : {title}"},
    "grown": {"en": "Now {severity}. {why}", "fr": "Désormais {severity}. {why}"},
    "unheard": {
        "en": "Nobody has taken it on for {n} days, now {severity}. {why}",
        "fr": "Personne ne s'en occupe depuis {n} jours, désormais {severity}. {why}",
    },
    "reminded": {"en": "Still there after its snooze. {why}", "fr": "Toujours là après la pause. {why}"},
    "severity.low": {"en": "low", "fr": "faible"},
    "severity.medium": {"en": "medium", "fr": "moyenne"},
    "severity.high": {"en": "high", "fr": "élevée"},
    "severity.critical": {"en": "critical", "fr": "critique"},
}


def text(name: str, language: Language, **values: object) -> str:
    return _TEXTS[name][language].format(**values)
