"""The compiled word lists: what each token says about mood and theme, looked up once and remembered."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from services.voc.language import COVERED, FUNCTION_WORDS, STEMMERS, tokens_of
from shared.errors import Misconfigured

GAP = "~"
LONGEST_GAP = 4
REMEMBERED_TOKENS = 200_000
SINGLE_WORD_CONFIDENCE = 0.7
PHRASE_CONFIDENCE = 0.9


@dataclass(frozen=True, slots=True)
class Phrase:
    """Stems in a row; `~` lets up to four words in between. `value` is its mood."""

    stems: tuple[str, ...]
    value: float
    negates: bool


@dataclass(frozen=True, slots=True)
class Term:
    """What names a theme: stems in a row, perhaps only under negation (`not:`) or only without (affirmed)."""

    theme: str
    stems: tuple[str, ...]
    confidence: float
    only_negated: bool
    only_affirmed: bool
    exact: str | None = None


@dataclass(frozen=True, slots=True)
class Word:
    """Everything the lists know of one token."""

    stem: str
    valence: float = 0.0
    boost: float = 0.0
    negates: bool = False
    contrast: bool = False
    concession: bool = False
    excess: bool = False
    excess_exempt: bool = False
    wish: bool = False
    known: bool = False
    phrases: tuple[Phrase, ...] = ()
    terms: tuple[Term, ...] = ()
    joins: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Theme:
    """A second-level theme: its parent, and the kind of comment it makes."""

    name: str
    parent: str
    kind: str | None
    risk: bool = False


@dataclass(slots=True)
class Vocabulary:
    """One language's lists; `word` answers for any token and remembers."""

    language: str
    surface: dict[str, float] = field(default_factory=dict)
    stems: dict[str, float] = field(default_factory=dict)
    boosters: dict[str, float] = field(default_factory=dict)
    negators: frozenset[str] = frozenset()
    contrasts: frozenset[str] = frozenset()
    concessions: frozenset[str] = frozenset()
    excess: frozenset[str] = frozenset()
    excess_exempt: frozenset[str] = frozenset()
    wishes: frozenset[str] = frozenset()
    phrases: dict[str, tuple[Phrase, ...]] = field(default_factory=dict)
    terms: dict[str, tuple[Term, ...]] = field(default_factory=dict)
    prefixes: dict[str, tuple[Term, ...]] = field(default_factory=dict)
    joins: dict[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    remembered: dict[str, Word] = field(default_factory=dict)

    def stem(self, token: str) -> str:
        return STEMMERS[self.language](token)

    def word(self, token: str) -> Word:
        found = self.remembered.get(token)
        if found is None:
            if len(self.remembered) >= REMEMBERED_TOKENS:
                self.remembered.clear()
            found = self.remembered[token] = self._look_up(token)
        return found

    def _look_up(self, token: str) -> Word:
        stem = self.stem(token)
        valence = self.surface.get(token)
        if valence is None:
            valence = self.stems.get(stem, 0.0)
        terms = tuple(term for term in self.terms.get(stem, ()) if term.exact is None or term.exact == token)
        if self.prefixes:
            for length in range(3, len(token) + 1):
                terms += self.prefixes.get(token[:length], ())
        boost = self.boosters.get(token, 0.0)
        negates = token in self.negators
        phrases = self.phrases.get(stem, ())
        return Word(
            stem=stem, valence=valence, boost=boost, negates=negates,
            contrast=token in self.contrasts, concession=token in self.concessions,
            excess=token in self.excess, excess_exempt=token in self.excess_exempt, wish=token in self.wishes,
            known=bool(valence or terms), phrases=phrases, terms=terms, joins=self.joins.get(token, ()),
        )  # fmt: skip

    def joined(self, tokens: list[str]) -> list[str]:
        """Markers of several words (`bien que`, `un peu`) become one token (`bien_que`)."""
        heads = self.joins
        if not any(token in heads for token in tokens):
            return tokens
        out: list[str] = []
        at, end = 0, len(tokens)
        while at < end:
            token = tokens[at]
            for parts in heads.get(token, ()):
                if tuple(tokens[at : at + len(parts)]) == parts:
                    out.append("_".join(parts))
                    at += len(parts)
                    break
            else:
                out.append(token)
                at += 1
        return out


@dataclass(frozen=True, slots=True)
class Lexicon:
    """Both vocabularies and the taxonomy; `digest` names exactly these lists."""

    vocabularies: Mapping[str, Vocabulary]
    themes: Mapping[str, Theme]
    renamed: Mapping[str, str]
    cues: Mapping[str, str]
    digest: str

    def theme(self, name: str) -> Theme | None:
        """The theme of this name, or what a former name became."""
        return self.themes.get(self.renamed.get(name, name))


def compile_lexicon(
    moods: Mapping[str, Mapping[str, Any]], taxonomy: Mapping[str, Any], extra: Mapping[str, Any] | None = None
) -> Lexicon:
    """Build the lists from their YAML; `extra` holds a company's own themes and words in the same form.

    Raises Misconfigured that names the theme and the fix.
    """
    vocabularies = {language: _mood_vocabulary(language, moods[language]) for language in COVERED}
    themes: dict[str, Theme] = {}
    terms: dict[str, list[Term]] = {language: [] for language in COVERED}
    for parent, children in taxonomy["themes"].items():
        for name, rule in children.items():
            _add_theme(themes, terms, f"{parent}.{name}", rule)
    for name, rule in (extra or {}).items():
        _add_theme(themes, terms, name, rule)
    cues: dict[str, str] = {}
    for cue, rule in taxonomy["cues"].items():
        cues[f"cue:{cue}"] = cue
        for language in COVERED:
            terms[language].extend(_terms(f"cue:{cue}", rule.get(language, ()), language, affirmed=True))
    for language, vocabulary in vocabularies.items():
        _index_terms(vocabulary, terms[language])
    material = yaml.safe_dump([dict(moods), dict(taxonomy), dict(extra or {})], sort_keys=True).encode()
    return Lexicon(vocabularies, themes, taxonomy.get("renamed") or {}, cues, hashlib.sha256(material).hexdigest())


def _mood_vocabulary(language: str, mood: Mapping[str, Any]) -> Vocabulary:
    stem = STEMMERS[language]
    surface: dict[str, float] = {}
    candidates: dict[str, list[float]] = {}
    phrases: list[tuple[str, float]] = [(str(text), float(value)) for text, value in mood["phrases"].items()]
    for side, sign in (("positive", 1.0), ("negative", -1.0)):
        for strength, words in mood[side].items():
            for written in words.split():
                tokens = tokens_of(written.lstrip("="))
                value = sign * float(strength)
                if len(tokens) > 1:
                    phrases.append((" ".join(tokens), value))
                    continue
                surface.setdefault(tokens[0], value)
                if not written.startswith("="):
                    candidates.setdefault(stem(tokens[0]), []).append(value)
    # A stem that is good in one word and bad in another, or is a function word, says nothing by itself.
    stems = {
        root: min(values, key=abs)
        for root, values in candidates.items()
        if (min(values) > 0 or max(values) < 0) and root not in FUNCTION_WORDS[language]
    }
    joins: dict[str, list[tuple[str, ...]]] = {}

    def marks(words: Iterable[str]) -> frozenset[str]:
        out = set()
        for written in words:
            tokens = tuple(tokens_of(written.lstrip("=")))
            if len(tokens) > 1:
                joins.setdefault(tokens[0], []).append(tokens)
            out.add("_".join(tokens))
        return frozenset(out)

    negators = marks(mood["negators"].split())
    vocabulary = Vocabulary(
        language, surface, stems,
        boosters={next(iter(marks([word]))): float(by) for word, by in mood["boosters"].items()},
        negators=negators, contrasts=marks(_listed(mood["contrasts"])), concessions=marks(_listed(mood["concessions"])),
        excess=marks(mood["excess"].split()), excess_exempt=marks(mood["excess_not"].split()),
        wishes=marks(mood["wishes"].split()),
    )  # fmt: skip
    vocabulary.joins = {head: tuple(sorted(parts, key=len, reverse=True)) for head, parts in joins.items()}
    indexed: dict[str, list[Phrase]] = {}
    for text, value in phrases:
        tokens = vocabulary.joined(tokens_of(text.lstrip("=")))
        negates = any(token in negators for token in tokens)
        phrase = Phrase(tuple(stem(token) for token in tokens), value, negates)
        indexed.setdefault(phrase.stems[0], []).append(phrase)
    vocabulary.phrases = {head: tuple(sorted(some, key=lambda p: -len(p.stems))) for head, some in indexed.items()}
    return vocabulary


def _listed(words: str) -> list[str]:
    return words.split()


def _add_theme(themes: dict[str, Theme], terms: dict[str, list[Term]], name: str, rule: Mapping[str, Any]) -> None:
    parent, dot, child = name.partition(".")
    if not (parent and dot and child):
        raise Misconfigured(f"theme {name!r} needs two levels; write it as parent.{name or 'name'}")
    known = themes.get(name)
    affirmed = bool(rule.get("affirmed", False))
    if known is None:
        themes[name] = Theme(name, parent, rule.get("kind"), bool(rule.get("risk", False)))
    for language in COVERED:
        terms[language].extend(_terms(name, rule.get(language) or (), language, affirmed))


def _terms(theme: str, written: Sequence[str], language: str, affirmed: bool) -> list[Term]:
    found = []
    for text in written:
        only_negated = text.startswith("not:")
        body = text.removeprefix("not:").strip()
        exact = body[1:] if body.startswith("=") else None
        prefix = body.endswith("*")
        tokens = [part for word in body.lstrip("=").rstrip("*").split() for part in (tokens_of(word) or [word])]
        if not tokens or tokens[0] == GAP:
            raise Misconfigured(f"theme {theme!r} has an empty term {text!r}; write a word or a phrase")
        stems = tuple(token if token == GAP else STEMMERS[language](token) for token in tokens)
        if prefix:
            if len(tokens) > 1 or len(tokens[0]) < 3:
                raise Misconfigured(
                    f"theme {theme!r}: {text!r} needs one word of three letters or more before the star"
                )
            stems, exact = (tokens[0],), "*"
        elif exact is not None:
            exact = tokens[0]
        confidence = SINGLE_WORD_CONFIDENCE if len(stems) == 1 else PHRASE_CONFIDENCE
        found.append(Term(theme, stems, confidence, only_negated, affirmed and not only_negated, exact))
    return found


def _index_terms(vocabulary: Vocabulary, terms: Iterable[Term]) -> None:
    by_head: dict[str, list[Term]] = {}
    by_prefix: dict[str, list[Term]] = {}
    for term in terms:
        where = by_prefix if term.exact == "*" else by_head
        where.setdefault(term.stems[0], []).append(term)
    vocabulary.terms = {head: tuple(some) for head, some in by_head.items()}
    vocabulary.prefixes = {head: tuple(some) for head, some in by_prefix.items()}
