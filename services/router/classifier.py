"""What a text asks for and about whom: French and English, deterministic, offline, with its confidence.

A text becomes words, words become concepts (`classifier_words.CONCEPTS`), and a rule holds when all its concepts are
there, in any order. A more specific rule silences those of other demands that it contains ("NPS survey to send" is no
question about the NPS). Confidence = best × (words spelt right) − half of the second best.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from services.router.account_index import AccountIndex, Mention, Token, tokens_of, within_one_edit
from services.router.classifier_words import (
    ACCOUNT,
    CLAUSE_WORDS,
    CONCEPTS,
    CUT_BY_DIMENSION,
    DETERMINERS,
    DIMENSIONS,
    HINT,
    INSTEAD,
    NEGATIONS,
    ORDERS,
    ORDINARY,
    POSSESSION,
    RULES,
    STOPWORDS,
    STRONG,
)

DEMANDS = tuple(RULES)
DEFAULT_BAR = 0.6
CONTEXT = frozenset({ACCOUNT, "book"})
TYPO = 0.9
RIVAL = 0.5
NEAREST = 3
LONG_WORD = 9


@dataclass(frozen=True, slots=True)
class Classification:
    """`demand` and `account_id` are None below the bar; the candidates then say what came nearest, best first."""

    demand: str | None
    confidence: float
    candidates: tuple[str, ...]
    account_id: str | None
    account_confidence: float
    account_candidates: tuple[str, ...]


@dataclass(slots=True)
class _Lexicon:
    """The concepts as lookups: exact words, stems by their first letters, phrases by their first word."""

    words: dict[str, set[str]] = field(default_factory=dict)
    stems: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    phrases: dict[str, list[tuple[tuple[str, ...], str]]] = field(default_factory=dict)
    spelling: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, concepts: dict[str, str]) -> _Lexicon:
        lexicon = cls()
        for concept, entries in concepts.items():
            for entry in entries.split():
                lexicon._add(concept, entry)
        for held in lexicon.phrases.values():
            held.sort(key=lambda phrase: (-len(phrase[0]), phrase))
        for word in (*lexicon.words, *(stem for stems in lexicon.stems.values() for stem, _ in stems)):
            if len(word) >= 5:
                for edge in (word[:2], f"~{word[-2:]}"):
                    lexicon.spelling.setdefault(edge, []).append(word)
        return lexicon

    def _add(self, concept: str, entry: str) -> None:
        if "_" in entry:
            parts = tuple(entry.split("_"))
            self.phrases.setdefault(parts[0], []).append((parts, concept))
        elif entry.endswith("*"):
            self.stems.setdefault(entry[:3], []).append((entry[:-1], concept))
        else:
            self.words.setdefault(entry, set()).add(concept)

    def spelt(self, word: str) -> frozenset[str]:
        """Concepts of a word as written, in its plural, feminine or verb form."""
        found = set(self.words.get(word, ()))
        for ending in ("es", "s", "e", "ees", "ee", "x"):
            if word.endswith(ending) and len(word) - len(ending) >= 3:
                found |= self.words.get(word[: -len(ending)], set())
        found.update(concept for stem, concept in self.stems.get(word[:3], ()) if word.startswith(stem))
        return frozenset(found)

    def misspelt(self, word: str) -> frozenset[str]:
        """Concepts of the nearest known word: one letter off from 5 letters on, two from 9."""
        if len(word) < 5 or word in ORDINARY or any(char.isdigit() for char in word):
            return frozenset()
        near = {other for edge in (word[:2], f"~{word[-2:]}") for other in self.spelling.get(edge, ())}
        for allowed in (1, 2) if len(word) >= LONG_WORD else (1,):
            hits = {other for other in near if _near(word, other, allowed)}
            if hits:
                return frozenset().union(*(self.spelt(other) for other in hits))
        return frozenset()


@lru_cache(maxsize=1)
def _lexicon() -> _Lexicon:
    return _Lexicon.of(CONCEPTS)


@lru_cache(maxsize=1)
def common_words() -> frozenset[str]:
    """Words that an account's name may share with a request: pass them to `AccountIndex(common=…)`."""
    single = {entry.rstrip("*") for entries in CONCEPTS.values() for entry in entries.split() if "_" not in entry}
    parts = {
        part for entries in CONCEPTS.values() for entry in entries.split() if "_" in entry for part in entry.split("_")
    }
    return frozenset(single | parts | STOPWORDS | NEGATIONS)


def an_index(pairs: Iterable[tuple[str, str]] = ()) -> AccountIndex:
    """An account index that knows which words are common in requests."""
    return AccountIndex(pairs, common=common_words())


def classify(text: str, accounts: AccountIndex, *, bar: float = DEFAULT_BAR) -> Classification:
    """Say what a text asks for and about which account, each only if at least `bar` sure."""
    tokens = tokens_of(text)
    mentions = accounts.find(tokens, known=_known(tokens))
    account_id, account_confidence, account_candidates = _account(mentions, bar)
    named = {place for mention in mentions if mention.confidence >= bar for place in range(mention.start, mention.stop)}
    excluded = _excluded(tokens)
    concepts = _concepts(tokens, named | excluded)
    if named:
        concepts[ACCOUNT] = 1.0
    demand, confidence, candidates = _demand(concepts, bar)
    return Classification(demand, confidence, candidates, account_id, account_confidence, account_candidates)


def _known(tokens: Sequence[Token]) -> frozenset[str]:
    lexicon = _lexicon()
    return frozenset(t.word for t in tokens if t.word in STOPWORDS or lexicon.spelt(t.word) or lexicon.misspelt(t.word))


def _account(mentions: Sequence[Mention], bar: float) -> tuple[str | None, float, tuple[str, ...]]:
    """The one account that is named; two of them, or a name that two share, are candidates only."""
    best: dict[str, float] = {}
    for mention in mentions:
        for account in mention.accounts:
            share = mention.confidence / len(mention.accounts)
            best[account] = max(best.get(account, 0.0), share if len(mention.accounts) > 1 else mention.confidence)
    ranked = sorted(best, key=lambda account: (-best[account], account))
    sure = [account for account in ranked if best[account] >= bar]
    shared = any(mention.confidence >= bar and len(mention.accounts) > 1 for mention in mentions)
    if len(sure) == 1 and not shared:
        return sure[0], round(best[sure[0]], 3), tuple(ranked[: 2 * NEAREST])
    confidence = round(best[ranked[0]] / max(1, len(sure)), 3) if ranked else 0.0
    return None, confidence, tuple(ranked[: 2 * NEAREST])


def _excluded(tokens: Sequence[Token]) -> set[int]:
    """Places that the text rules out: "not the NPS", "pas l'EBR", "don't send …", up to the end of the clause."""
    excluded: set[int] = set()
    clause = 0
    for place, token in enumerate(tokens):
        if token.breaks or token.word in CLAUSE_WORDS:
            clause = place
        if _rules_out(tokens, place, clause):
            excluded.update(range(place, _clause_end(tokens, place + 1)))
    return excluded


def _rules_out(tokens: Sequence[Token], place: int, clause: int) -> bool:
    word = tokens[place].word
    following = tokens[place + 1].word if place + 1 < len(tokens) else ""
    if any(word == first and following == second for first, second in INSTEAD):
        return True
    if word in {"don", "dont"} or (word == "do" and following == "not") or word in {"never", "ne", "n"}:
        # An order not to do it, not a statement: nothing but politeness stands before it in the clause.
        return all(token.word in ORDERS for token in tokens[clause:place])
    if word not in NEGATIONS:
        return False
    before = {token.word for token in tokens[max(0, place - 2) : place]}
    if before & POSSESSION:
        return False
    if word in {"no", "without", "sans", "aucun", "aucune", "neither", "ni", "non"}:
        return place == clause or word in {"without", "sans", "ni"}
    return following in DETERMINERS


def _clause_end(tokens: Sequence[Token], start: int) -> int:
    for place in range(start, len(tokens)):
        if tokens[place].breaks or tokens[place].word in CLAUSE_WORDS:
            return place
    return len(tokens)


def _concepts(tokens: Sequence[Token], taken: set[int]) -> dict[str, float]:
    """Concept → trust (1 as spelt, less for a typo) of the words that are left."""
    lexicon = _lexicon()
    words = [(place, token.word) for place, token in enumerate(tokens) if place not in taken]
    telling = [(place, word) for place, word in words if word not in STOPWORDS]
    found: dict[str, float] = {}
    in_phrase = _phrases(telling, found) | _phrases(words, found)
    for place, word in telling:
        if place in in_phrase:
            continue
        spelt = lexicon.spelt(word)
        for concept in spelt or lexicon.misspelt(word):
            found[concept] = max(found.get(concept, 0.0), 1.0 if spelt else TYPO)
    return found


def _phrases(words: Sequence[tuple[int, str]], found: dict[str, float]) -> set[int]:
    """Note the concepts of phrases, longest first, and return the places they take."""
    taken: set[int] = set()
    at = 0
    while at < len(words):
        size = 1
        for parts, concept in _phrase_candidates(words[at][1]):
            here = tuple(word for _, word in words[at : at + len(parts)])
            if len(here) == len(parts) and all(_same(word, part) for word, part in zip(here, parts, strict=True)):
                found[concept] = 1.0
                taken.update(place for place, _ in words[at : at + len(parts)])
                size = len(parts)
                break
        at += size
    return taken


def _phrase_candidates(word: str) -> Sequence[tuple[tuple[str, ...], str]]:
    phrases = _lexicon().phrases
    return phrases.get(word) or phrases.get(word.removesuffix("s")) or ()


def _same(word: str, part: str) -> bool:
    return word == part or (len(part) > 3 and word in {part + "s", part + "e", part + "es"})


def _demand(concepts: dict[str, float], bar: float) -> tuple[str | None, float, tuple[str, ...]]:
    present = frozenset(concepts)
    held = [rule for rule in _rules() if rule.concepts <= present]
    strong = [rule for rule in held if rule.weight > HINT]
    scores: dict[str, float] = {}
    for rule in held:
        if any(other.demand != rule.demand and rule.core < other.core for other in strong):
            continue
        trust = min(concepts[concept] for concept in rule.concepts)
        scores[rule.demand] = max(scores.get(rule.demand, 0.0), rule.weight * trust)
    ranked = sorted(scores, key=lambda demand: (-scores[demand], demand))
    if not ranked:
        return None, 0.0, ()
    rival = scores[ranked[1]] if len(ranked) > 1 else 0.0
    confidence = round(max(0.0, scores[ranked[0]] - RIVAL * rival), 3)
    return ranked[0] if confidence >= bar else None, confidence, tuple(ranked[:NEAREST])


@dataclass(frozen=True, slots=True)
class _Rule:
    demand: str
    weight: float
    concepts: frozenset[str]
    core: frozenset[str]


@lru_cache(maxsize=1)
def _rules() -> tuple[_Rule, ...]:
    rules = []
    for demand, entries in RULES.items():
        for weight, names in ((weight, rule) for weight, listed in entries.items() for rule in listed.split()):
            concepts = frozenset(names.split("+"))
            unknown = concepts - CONCEPTS.keys() - {ACCOUNT}
            if unknown:
                raise ValueError(f"rule {names!r} of {demand} names unknown concepts: {', '.join(sorted(unknown))}")
            rules.append(_Rule(demand, weight, concepts, concepts - CONTEXT))
            if concepts & CUT_BY_DIMENSION and weight > HINT and len(concepts - CONTEXT) == 1:
                rules.extend(_Rule(demand, STRONG, cut, cut - CONTEXT) for cut in (concepts | {d} for d in DIMENSIONS))
    return tuple(rules)


def _near(word: str, other: str, allowed: int) -> bool:
    if allowed == 1:
        return within_one_edit(word, other)
    return abs(len(word) - len(other)) <= allowed and _distance(word, other) <= allowed


def _distance(left: str, right: str) -> int:
    """Edit distance with swapped neighbours counted once (optimal string alignment)."""
    before: list[int] = []
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        earlier, before, row = before, row, [i]
        for j, b in enumerate(right, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a != b))
            if i > 1 and j > 1 and a == right[j - 2] and left[i - 2] == b:
                cost = min(cost, earlier[j - 2] + 1)
            row.append(cost)
    return row[-1]
