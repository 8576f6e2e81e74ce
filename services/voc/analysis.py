"""One comment, read: language, mood, themes, kind and severity, by a named version of the rules (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from services.voc.language import COVERED, UNKNOWN, language_of, tokens_of
from services.voc.lexicon import Lexicon, Vocabulary
from services.voc.sentiment import Mood, mood_of
from services.voc.themes import Label, kind_of, labels_of, severity_of

RULES = "1"
NOT_COVERED = "language not covered"
NOTHING_MATCHED = "no theme matched"
NO_WORDS = "no words"


@dataclass(frozen=True, slots=True)
class Reading:
    """What the rules make of a comment; sentiment is null where its language has no lexicon.

    `severity` is what the words say; one that the event names goes before it.
    """

    language: str
    sentiment: float | None
    label: str | None
    labels: tuple[Label, ...]
    kind: str
    severity: str | None
    cues: int
    unlabelled: str | None
    rule: str


def rule_version(lexicon: Lexicon) -> str:
    return f"{RULES}.{lexicon.digest[:8]}"


def analyse(text: str, source: str, lexicon: Lexicon, given_language: str | None = None) -> Reading:
    """Read one comment; the same text and lists give the same reading for ever."""
    rule = rule_version(lexicon)
    tokens = tokens_of(text)
    language, vocabulary = _vocabulary(tokens, lexicon, given_language)
    if vocabulary is None:
        reason = NOT_COVERED if tokens else NO_WORDS
        kind = "gap" if source == "request" else "other"
        return Reading(language, None, None, (), kind, None, 0, reason, rule)
    tokens = vocabulary.joined(tokens)
    words = [vocabulary.word(token) for token in tokens]
    mood: Mood = mood_of(tokens, words, vocabulary)
    found = labels_of(tokens, words, mood)
    kind = kind_of(source, found.labels, mood, lexicon)
    return Reading(
        language, mood.score, mood.label, found.labels, kind, severity_of(kind, found.cues, mood),
        mood.cues, None if found.labels else NOTHING_MATCHED, rule,
    )  # fmt: skip


def _vocabulary(tokens: list[str], lexicon: Lexicon, given: str | None) -> tuple[str, Vocabulary | None]:
    english, french = lexicon.vocabularies["en"], lexicon.vocabularies["fr"]
    if given:
        language = language_of((), given=given)
        if language != UNKNOWN:
            return language, lexicon.vocabularies.get(language)
    known_en = known_fr = frozenset[str]()
    if len(tokens) < 25:
        known_en = frozenset(token for token in tokens if english.word(token).known)
        known_fr = frozenset(token for token in tokens if french.word(token).known)
    language = language_of(tokens, known_en, known_fr)
    if language == UNKNOWN and tokens:
        # Too few words to tell: English reads them, as nothing in either list is known.
        return UNKNOWN, english
    return language, lexicon.vocabularies[language] if language in COVERED else None


def to_json(reading: Reading) -> dict[str, Any]:
    """A reading as it is stored; its rule version is kept beside."""
    return {
        "language": reading.language, "sentiment": reading.sentiment, "mood": reading.label, "kind": reading.kind,
        "labels": [[one.theme, one.confidence, one.sentiment] for one in reading.labels],
        "severity": reading.severity, "cues": reading.cues, "unlabelled": reading.unlabelled,
    }  # fmt: skip


def from_json(stored: Mapping[str, Any], rule: str) -> Reading:
    labels = tuple(Label(theme, confidence, sentiment) for theme, confidence, sentiment in stored["labels"])
    return Reading(
        stored["language"], stored["sentiment"], stored["mood"], labels, stored["kind"], stored["severity"],
        stored["cues"], stored["unlabelled"], rule,
    )  # fmt: skip
