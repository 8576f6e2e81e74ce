"""Sentences about what people did and what alerts say, in English and French."""

from __future__ import annotations

from services.health.settings import Language

_TEXTS: dict[str, dict[Language, str]] = {
    "nothing": {"en": "nothing", "fr": "rien"},
    "overridden": {
        "en": "Set to {score} by {by} until {until}: {reason} (computed: {computed})",
        "fr": "Fixé à {score} par {by} jusqu'au {until} : {reason} (calculé : {computed})",
    },
    "back_to": {
        "en": "The override by {by} is over: {score} as computed",
        "fr": "La correction de {by} est terminée : {score} d'après le calcul",
    },
    "back_to_unknown": {
        "en": "The override by {by} is over: too little is known for a score",
        "fr": "La correction de {by} est terminée : trop peu de données pour un score",
    },
    "merged": {"en": "The account was merged into {into}", "fr": "Le compte a été fusionné avec {into}"},
    "closed": {"en": "Closed by {by}: {title}", "fr": "Clos par {by} : {title}"},
    "closed_by_nobody": {"en": "Closed by request: {title}", "fr": "Clos sur demande : {title}"},
    "grown": {"en": "Now {severity}. {why}", "fr": "Désormais {severity}. {why}"},
    "unheard": {
        "en": "Nobody has taken it on for {n} days, now {severity}. {why}",
        "fr": "Personne ne s'en occupe depuis {n} jours, désormais {severity}. {why}",
    },
    "reminded": {"en": "Still there after its snooze. {why}", "fr": "Toujours là après la pause. {why}"},
    "notice_near.title": {
        "en": "Notice is due in {n} days, health {score}",
        "fr": "Préavis dans {n} jours, santé {score}",
    },
    "notice_near.why": {
        "en": "The next deadline of the contract is {day}, in {n} days. {parts}",
        "fr": "La prochaine échéance du contrat est le {day}, dans {n} jours. {parts}",
    },
    "licence_full.title": {
        "en": "{share} of the licences are in use",
        "fr": "{share} des licences sont utilisées",
    },
    "licence_full.why": {
        "en": "{n} people in the last {days} days for {seats} seats",
        "fr": "{n} personnes ces {days} derniers jours pour {seats} licences",
    },
    "revenue_disagrees.falls.title": {
        "en": "Green, but revenue fell by {by}",
        "fr": "Au vert, mais le revenu a baissé de {by}",
    },
    "revenue_disagrees.falls.why": {
        "en": "Score {score}, and the MRR went from {before} to {mrr} within {days} days",
        "fr": "Score {score}, et le MRR est passé de {before} à {mrr} en {days} jours",
    },
    "revenue_disagrees.grows.title": {
        "en": "Red, but revenue grew by {by}",
        "fr": "Au rouge, mais le revenu a augmenté de {by}",
    },
    "revenue_disagrees.grows.why": {
        "en": "Score {score}, and the MRR went from {before} to {mrr} within {days} days",
        "fr": "Score {score}, et le MRR est passé de {before} à {mrr} en {days} jours",
    },
    "new_people.title": {
        "en": "{n} new people within {days} days: a new team?",
        "fr": "{n} nouvelles personnes en {days} jours : une nouvelle équipe ?",
    },
    "new_people.why": {
        "en": "{n} people used it for the first time in the last {days} days, beside {before} before",
        "fr": "{n} personnes l'ont utilisé pour la première fois ces {days} derniers jours, {before} auparavant",
    },
    "step": {"en": "{label} from {now} to {to}", "fr": "{label} de {now} à {to}"},
    "step_points": {"en": "{label} from {now} to {to} points", "fr": "{label} de {now} à {to} points"},
    "feature.broke": {"en": "Tracking of {it} broke", "fr": "Le suivi de {it} est rompu"},
    "source.broke": {"en": "{it} is silent", "fr": "{it} ne dit plus rien"},
    "tracking_break.title": {
        "en": "Tracking of {it} broke: {n} of {usual} accounts",
        "fr": "Le suivi de {it} est rompu : {n} comptes sur {usual}",
    },
    "tracking_break.why": {
        "en": "Since {day} use of {it} has fallen across all accounts at once: {n} used it on {last}, {usual} are "
        "usual. What depends on it is frozen, and its alerts are mute.",
        "fr": "Depuis le {day}, l'usage de {it} a chuté pour tous les comptes à la fois : {n} le {last}, contre "
        "{usual} d'habitude. Ce qui en dépend est gelé, ses alertes sont muettes.",
    },
    "source_silent.title": {"en": "{it} is silent", "fr": "{it} ne dit plus rien"},
    "source_silent.why": {
        "en": "Last heard on {last} UTC; by its own rhythm it would have sent in {missed} hours since ({week} a week).",
        "fr": "Dernières données le {last} UTC ; à son rythme, il aurait envoyé dans {missed} heures depuis "
        "({week} par semaine).",
    },
    "source_silent.mute": {
        "en": " Measures of use are frozen, and their alerts mute.",
        "fr": " Les mesures d'usage sont gelées, leurs alertes muettes.",
    },
    "guidance.of_segment": {"en": " of segment {segment}", "fr": " du segment {segment}"},
    "guidance.of_none": {"en": " without a segment", "fr": " sans segment"},
    "guidance.why": {
        "en": "{using} of {n} other green accounts{group} that are entitled to {feature} use it; this one is entitled "
        "too, and nobody here has used it in {days} days",
        "fr": "{using} des {n} autres comptes au vert{group} ayant droit à {feature} l'utilisent ; celui-ci y a droit "
        "aussi, et personne ne s'en est servi en {days} jours",
    },
    "guidance.step": {
        "en": "Show them {feature}: {using} of {n} other green accounts{group} use it, nobody here has in {days} days.",
        "fr": "Présentez-leur {feature} : {using} des {n} autres comptes au vert{group} l'utilisent, personne ici en "
        "{days} jours.",
    },
    "severity.low": {"en": "low", "fr": "faible"},
    "severity.medium": {"en": "medium", "fr": "moyenne"},
    "severity.high": {"en": "high", "fr": "élevée"},
    "severity.critical": {"en": "critical", "fr": "critique"},
}


def text(name: str, language: Language, **values: object) -> str:
    return _TEXTS[name][language].format(**values)


def has(name: str) -> bool:
    return name in _TEXTS
