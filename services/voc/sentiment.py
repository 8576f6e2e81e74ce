"""Mood of a comment: word values under negation, strengthening, wish, excess and contrast (pure).

Each cue is worth its list value, times the words that strengthen it, turned round by negation. In
`A but B` the second half weighs more, in `although A, B` the first half less. The score is
sum ÷ sqrt(sum² + SOFTENING), in −1…1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

from services.voc.language import BREAKS, FROWN, PUNCTUATION, SMILE
from services.voc.lexicon import Vocabulary, Word

SOFTENING = 12.0
NEGATED_GOOD = -0.85
NEGATED_BAD = -0.5
BARE_NEGATION = -0.75
BEFORE_CONTRAST = 0.6
AFTER_CONTRAST = 1.3
CONCEDED = 0.55
WISHED = 0.2
TOO_MUCH = -1.0
EXCLAIMED = 1.15
CONCLUSION = 1.3
LONG_COMMENT = 3  # sentences
REACH = {"en": 4, "fr": 4}
POSITIVE, NEGATIVE, NEUTRAL, MIXED = "positive", "negative", "neutral", "mixed"
CLEAR = 0.2
TORN = 0.5

_FRENCH_WRAPPED = frozenset("pas plus jamais rien guere point personne aucun aucune aucunement nullement".split())
_FRENCH_NEEDS_NE = frozenset("plus point personne".split())
_FRENCH_ADVERBS = frozenset("toujours vraiment meme franchement encore du tout non".split())
_FORWARD_ONE = frozenset(["moins", "less"])
_WISH_VERBS = frozenset("be have love like help make get improve benefit appreciate prefer".split())
_MODALS = frozenset("would could should might".split())
_EMOJI: dict[str, float] = {
    SMILE: 1.5, "😀": 2, "😃": 2, "😄": 2, "😊": 2, "😍": 3, "👍": 2, "❤": 2, "🎉": 2, "🙏": 1, "👏": 2,
    "🚀": 1.5, "<3": 2,
    FROWN: -1.5, "😞": -2, "😠": -2, "😡": -3, "🤬": -3, "👎": -2, "😤": -2, "😢": -2, "😭": -2, "🙄": -1.5, "💩": -3,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mood:
    """Score in −1…1 with its label; `weights` is what each token contributes, `negated` where negation rules."""

    score: float
    label: str
    cues: int
    weights: tuple[float, ...]
    negated: tuple[bool, ...]


def squash(total: float, softening: float = SOFTENING) -> float:
    """Bring a sum of cues into −1…1, to four places."""
    return round(total / sqrt(total * total + softening), 4) if total else 0.0


def mood_of(tokens: Sequence[str], words: Sequence[Word], vocabulary: Vocabulary) -> Mood:
    valences, taken = _valences(tokens, words)
    negated = _negated(tokens, words, taken, vocabulary.language)
    weights = _weigh(tokens, words, valences, negated, taken)
    _contrast(tokens, words, weights, vocabulary.language)
    good = sum(weight for weight in weights if weight > 0)
    bad = -sum(weight for weight in weights if weight < 0)
    score = squash(good - bad)
    cues = sum(1 for weight in weights if weight)
    return Mood(score, _label(score, good, bad), cues, tuple(weights), tuple(negated))


def _label(score: float, good: float, bad: float) -> str:
    if good >= 1 and bad >= 1 and min(good, bad) / max(good, bad) >= TORN:
        return MIXED
    if score >= CLEAR:
        return POSITIVE
    return NEGATIVE if score <= -CLEAR else NEUTRAL


def _valences(tokens: Sequence[str], words: Sequence[Word]) -> tuple[list[float], list[int]]:
    """Value per token; `taken` marks what a phrase swallowed: 1, or 2 where the phrase itself negates."""
    valences = [word.valence for word in words]
    taken = [0] * len(words)
    for at, word in enumerate(words):
        if not word.phrases:
            if not word.valence and tokens[at] in _EMOJI:
                valences[at] = _EMOJI[tokens[at]]
            continue
        if taken[at]:
            continue
        for phrase in word.phrases:
            length = len(phrase.stems)
            if length == 1 or (
                at + length <= len(words)
                and words[at + 1].stem == phrase.stems[1]
                and (length == 2 or _follows(words, at, phrase.stems))
            ):
                mark = 2 if phrase.negates else 1
                for inside in range(at, at + length):
                    valences[inside] = 0.0
                    taken[inside] = mark
                valences[at] = phrase.value
                break
    return valences, taken


def _follows(words: Sequence[Word], at: int, stems: tuple[str, ...]) -> bool:
    return all(words[at + step].stem == stem for step, stem in enumerate(stems) if step)


def _negated(tokens: Sequence[str], words: Sequence[Word], taken: Sequence[int], language: str) -> list[bool]:
    negated = [False] * len(words)
    french = language == "fr"
    for at, word in enumerate(words):
        if not word.negates:
            continue
        if taken[at]:
            # The phrase's own value stands (`no bugs`, `ne marche pas`); what it denies is still denied.
            _deny_inside(negated, taken, at)
            if at + 1 >= len(words) or taken[at + 1]:
                continue
        token = tokens[at]
        opened = -1
        if french and token in _FRENCH_WRAPPED:
            for back in range(at - 1, max(-1, at - 6), -1):
                if tokens[back] in PUNCTUATION:
                    break
                if tokens[back] in ("ne", "n"):
                    opened = back
                    break
            if opened < 0 and token in _FRENCH_NEEDS_NE:
                continue
            if opened >= 0:
                for inside in range(opened + 1, at):
                    negated[inside] = True
            elif token == "pas":
                back = at - 1
                while back > 0 and tokens[back] in _FRENCH_ADVERBS:
                    back -= 1
                if back >= 0 and tokens[back] not in PUNCTUATION:
                    negated[back] = True
        reach = 1 if token in _FORWARD_ONE else REACH[language]
        for ahead in range(at + 1, min(len(words), at + 1 + reach)):
            if (
                tokens[ahead] in PUNCTUATION
                or words[ahead].contrast
                or (french and tokens[ahead] in ("que", "qui", "et"))
            ):
                break
            if not french and tokens[ahead] in ("because", "when", "which", "who", "and"):
                break
            negated[ahead] = True
            if words[ahead].valence:
                break
    return negated


def _deny_inside(negated: list[bool], taken: Sequence[int], at: int) -> None:
    for step in (1, -1):
        inside = at + step
        while 0 <= inside < len(taken) and taken[inside] == 2:
            negated[inside] = True
            inside += step


def _weigh(
    tokens: Sequence[str], words: Sequence[Word], valences: list[float], negated: list[bool], taken: Sequence[int]
) -> list[float]:
    weights = [0.0] * len(words)
    strength, strengthened_at = 1.0, -9
    wish_at, excess_at = -9, -9
    for at, word in enumerate(words):
        token = tokens[at]
        if token in PUNCTUATION:
            strengthened_at = wish_at = excess_at = -9
            continue
        if word.excess and not taken[at]:
            excess_at = at
            strength, strengthened_at = 1.3, at
            continue
        if word.wish and not taken[at] and _is_wish(tokens, at):
            wish_at = at
        value = valences[at]
        if not value:
            if excess_at == at - 1 and word.boost == 0 and not word.excess_exempt and not taken[at] and len(token) > 2:
                weights[at] = TOO_MUCH if not negated[at] else -TOO_MUCH * 0.5
                excess_at = -9
            elif word.boost and not taken[at]:
                strength = word.boost * (strength if strengthened_at == at - 1 else 1.0)
                strengthened_at = at
            elif word.negates and not taken[at] and not _resolved(at, negated, valences):
                weights[at] = BARE_NEGATION
            continue
        if word.negates and not taken[at]:
            # `without delay`: the word negates; it is bad by itself only when nothing follows.
            weights[at] = 0.0 if _resolved(at, negated, valences) else value * 0.6
            continue
        if word.boost and not taken[at] and _next_valued(at, valences, tokens):
            strength, strengthened_at = word.boost, at
            continue
        if at - strengthened_at <= 2:
            value *= strength
        if excess_at >= 0 and at - excess_at <= 2 and value > 0 and not word.excess_exempt and not taken[at]:
            value *= NEGATED_GOOD
        if negated[at] and taken[at] != 2:
            value *= NEGATED_GOOD if value > 0 else NEGATED_BAD
        elif wish_at >= 0 and at - wish_at <= 5 and value > 0 and not token.startswith("recom"):
            value *= WISHED
        weights[at] = value
        excess_at = -9
    return weights


def _is_wish(tokens: Sequence[str], at: int) -> bool:
    if tokens[at] not in _MODALS:
        return True
    return any(token in _WISH_VERBS for token in tokens[at + 1 : at + 4])


def _resolved(at: int, negated: Sequence[bool], valences: Sequence[float]) -> bool:
    """Whether the negator at `at` turns some cue round, ahead of it or just before."""
    for ahead in range(at + 1, min(len(valences), at + 6)):
        if not negated[ahead]:
            break
        if valences[ahead]:
            return True
    return any(negated[back] and valences[back] for back in range(max(0, at - 3), at))


def _next_valued(at: int, valences: Sequence[float], tokens: Sequence[str]) -> bool:
    return at + 1 < len(valences) and bool(valences[at + 1]) and tokens[at + 1] not in PUNCTUATION


def _contrast(tokens: Sequence[str], words: Sequence[Word], weights: list[float], language: str) -> None:
    """Weigh the sides of `but` and `although`, exclamations, and the closing sentence of a long comment."""
    end = len(tokens)
    sentences: list[tuple[int, int]] = []
    start = 0
    for at, token in enumerate(tokens):
        if token in BREAKS:
            if at > start:
                sentences.append((start, at))
            start = at + 1
    if start < end:
        sentences.append((start, end))
    for number, (start, stop) in enumerate(sentences):
        turn = -1
        for at in range(start, stop):
            word = words[at]
            if word.contrast:
                turn = at
            elif word.concession:
                for inside in range(at, stop):
                    if tokens[inside] == ",":
                        break
                    weights[inside] *= CONCEDED
        if turn > start + 1:
            for at in range(start, turn):
                weights[at] *= BEFORE_CONTRAST
        elif turn >= 0 and number:
            earlier, until = sentences[number - 1]
            for at in range(earlier, until):
                weights[at] *= BEFORE_CONTRAST
        if turn >= 0:
            for at in range(turn, stop):
                weights[at] *= AFTER_CONTRAST
        if stop < end and tokens[stop] == "!":
            for at in range(start, stop):
                weights[at] *= EXCLAIMED
    if len(sentences) >= LONG_COMMENT:
        start, stop = sentences[-1]
        for at in range(start, stop):
            weights[at] *= CONCLUSION
