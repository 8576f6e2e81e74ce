"""What a comment is about: themes with confidence and their own mood, its kind and its severity (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from services.voc.language import BREAKS
from services.voc.lexicon import GAP, LONGEST_GAP, Lexicon, Term, Word
from services.voc.sentiment import Mood, squash

CLAUSE_SOFTENING = 4.0
CUE = "cue:"
DEFECT, GAP_KIND, USABILITY, DOCS, PRICE, SERVICE, PRAISE, OTHER = (
    "defect", "gap", "usability", "docs", "price", "service", "praise", "other",
)  # fmt: skip
KINDS = (DEFECT, GAP_KIND, USABILITY, DOCS, PRICE, SERVICE, PRAISE, OTHER)
_URGENCY = (DEFECT, PRICE, SERVICE, USABILITY, DOCS, GAP_KIND)


@dataclass(frozen=True, slots=True)
class Label:
    """One theme of one comment, how sure, and the mood of the clauses that name it."""

    theme: str
    confidence: float
    sentiment: float


@dataclass(frozen=True, slots=True)
class Found:
    labels: tuple[Label, ...]
    cues: frozenset[str]


def labels_of(tokens: Sequence[str], words: Sequence[Word], mood: Mood) -> Found:
    """Every theme named, best first; a term that needs denial or its absence looks at the negations."""
    doubts: dict[str, float] = {}
    places: dict[str, list[int]] = {}
    cues: set[str] = set()
    seen: set[tuple[str, tuple[str, ...]]] = set()
    for at, word in enumerate(words):
        for term in word.terms:
            end = _end_of(words, at, term)
            if end < 0 or not _fits(term, mood.negated, at, end):
                continue
            if term.theme.startswith(CUE):
                cues.add(term.theme.removeprefix(CUE))
                continue
            places.setdefault(term.theme, []).append(at)
            if (term.theme, term.stems) not in seen:
                seen.add((term.theme, term.stems))
                doubts[term.theme] = doubts.get(term.theme, 1.0) * (1.0 - term.confidence)
    if not doubts:
        return Found((), frozenset(cues))
    clauses = _clauses(tokens, words)
    labels = (
        Label(theme, round(1.0 - doubt, 2), _mood_at(places[theme], clauses, mood)) for theme, doubt in doubts.items()
    )
    return Found(tuple(sorted(labels, key=lambda label: (-label.confidence, label.theme))), frozenset(cues))


def _end_of(words: Sequence[Word], at: int, term: Term) -> int:
    """Index after the term's last word, or -1."""
    stems = term.stems
    if len(stems) == 1:
        return at + 1
    position, total = at + 1, len(words)
    step = 1
    while step < len(stems):
        if stems[step] == GAP:
            step += 1
            wanted = stems[step]
            for ahead in range(position, min(total, position + LONGEST_GAP + 1)):
                if words[ahead].stem == wanted:
                    position = ahead + 1
                    break
            else:
                return -1
        else:
            if position >= total or words[position].stem != stems[step]:
                return -1
            position += 1
        step += 1
    return position


def _fits(term: Term, negated: Sequence[bool], at: int, end: int) -> bool:
    if term.only_negated:
        return any(negated[at:end])
    return not (term.only_affirmed and negated[at])


def _clauses(tokens: Sequence[str], words: Sequence[Word]) -> list[int]:
    """The clause each token is in; sentences, commas and contrasts part them."""
    clauses, number = [], 0
    for at, token in enumerate(tokens):
        if token in BREAKS or token in ",:()" or words[at].contrast:
            number += 1
        clauses.append(number)
    return clauses


def _mood_at(places: Iterable[int], clauses: Sequence[int], mood: Mood) -> float:
    wanted = {clauses[at] for at in places}
    weights = [weight for at, weight in enumerate(mood.weights) if weight and clauses[at] in wanted]
    return squash(sum(weights), CLAUSE_SOFTENING) if weights else mood.score


def kind_of(source: str, labels: Sequence[Label], mood: Mood, lexicon: Lexicon) -> str:
    """Praise when it only praises; else what its worst-felt theme is about; a request is a gap."""
    if source == "request":
        return GAP_KIND
    kinds: dict[str, float] = {}
    for label in labels:
        theme = lexicon.themes.get(label.theme)
        if theme is None or theme.kind is None or theme.kind == PRAISE:
            continue
        kinds[theme.kind] = min(kinds.get(theme.kind, 1.0), label.sentiment)
    if "features.missing" in (label.theme for label in labels) and mood.score > -0.2:
        return GAP_KIND
    if mood.label == "positive" and not any(value <= -0.2 for value in kinds.values()):
        return PRAISE
    if not kinds:
        return PRAISE if mood.label == "positive" else OTHER
    return min(kinds, key=lambda kind: (kinds[kind] > 0.2, _URGENCY.index(kind) if kind in _URGENCY else 9))


def severity_of(kind: str, cues: Iterable[str], mood: Mood) -> str | None:
    """p1 to p4 from what the words say of a defect or complaint; praise has none."""
    found = frozenset(cues)
    if kind == PRAISE:
        return None
    if kind == DEFECT and "total" in found:
        return "p1"
    if "blocking" in found and mood.score < 0.2:
        return "p2"
    if kind == DEFECT:
        return "p3"
    return "p4" if mood.score < -0.2 else None
