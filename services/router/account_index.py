"""Finds the accounts that a text names: by id, by name, by part of a name, and with a typo."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass


def words(text: str) -> frozenset[str]:
    """The words of a list written as prose."""
    return frozenset(text.split())


LEGAL = words("ltd limited inc corp corporation llc plc gmbh ag sa sas sarl sasu bv nv srl spa co group groupe")
GENERIC = words(
    """company companies partner partners solution solutions industries industry media europe france paris london
    international service services consulting technology technologies systems system global digital studio studios
    hotel hotels boulangerie restaurant societe agence agency bank banque cafe shop store stores office holding
    traders imports logistics software labs lab conseil"""
)
"""Words of many names: alone they name nobody."""
ARTICLES = words("the le la les l")
JOINERS = words("and et")
LONGEST_NAME = 8
TYPO = 0.68
"""A whole name with a typo passes the default bar, a part of one does not."""
CROWD = 200
"""More accounts than this behind one word: the word names nobody."""
_TOKEN = re.compile(r"[^\W_]+(?:[._:#@/-][^\W_]+|_+[^\W_]+)*|&")
_PART = re.compile(r"[^\W_]+")
_ELIDED = re.compile(r"\b(l|d|j|qu|n|s|c|m|t)['’]", re.IGNORECASE)
_POSSESSIVE = re.compile(r"['’]s\b|['’](?=\s|$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Token:
    """One word: as folded, whether it began with a capital, and the whole id-like run it belongs to."""

    word: str
    capital: bool
    run: str
    run_size: int
    """How many tokens the run spans from here; 0 inside a run."""
    breaks: bool
    """A comma, full stop or the like stands before it."""


@dataclass(frozen=True, slots=True)
class Mention:
    """Tokens [start, stop) name one of `accounts`."""

    start: int
    stop: int
    accounts: tuple[str, ...]
    confidence: float


def fold(text: str) -> str:
    """Lower-case without accents; ligatures are spelt out."""
    if text.isascii():
        return text.lower()
    spelt = text.replace("œ", "oe").replace("Œ", "Oe").replace("æ", "ae").replace("ß", "ss")
    plain = unicodedata.normalize("NFKD", spelt)
    return "".join(char for char in plain if not unicodedata.combining(char)).casefold()


def tokens_of(text: str) -> list[Token]:
    """Cut a text into words; `acct_12` stays recognisable as one run, elisions and `'s` come apart."""
    if "'" in text or "’" in text:
        text = _POSSESSIVE.sub(" ", _ELIDED.sub(r"\1 ", text))
    tokens: list[Token] = []
    end = 0
    for match in _TOKEN.finditer(text):
        run, gap = match.group(), text[end : match.start()]
        end = match.end()
        breaks = gap not in ("", " ") and any(mark in gap for mark in ",;:.!?()\n–—")
        parts = _PART.findall(run) or [run]
        for position, part in enumerate(parts):
            size = 0 if position else len(parts)
            tokens.append(Token(fold(part), part[:1].isupper(), run, size, breaks and not position))
    return tokens


def within_one_edit(left: str, right: str) -> bool:
    """One letter more, less, other, or two swapped."""
    if left == right:
        return True
    if abs(len(left) - len(right)) > 1:
        return False
    head = 0
    while head < min(len(left), len(right)) and left[head] == right[head]:
        head += 1
    a, b = left[head:], right[head:]
    return a[1:] == b[1:] or a[1:] == b or a == b[1:] or (a[:2] == b[1::-1] and a[2:] == b[2:])


class AccountIndex:
    """Accounts by id and by the words of their names; adding one again renames it.

    `common` holds words that also mean something else in a request (`orange`, `review`): alone they name an account
    only when written with a capital.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]] = (), *, common: Collection[str] = frozenset()) -> None:
        self.common = common
        self._names: dict[str, tuple[str, ...]] = {}
        self._ids: dict[str, tuple[str, ...]] = {}
        self._phrases: dict[str, tuple[str, ...]] = {}
        self._words: dict[str, tuple[str, ...]] = {}
        self._edges: dict[str, tuple[str, ...]] = {}
        for account_id, name in pairs:
            self.add(account_id, name)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, account_id: object) -> bool:
        return account_id in self._names

    def add(self, account_id: str, name: str | None) -> None:
        """Learn an account or its new name; without a name it is known by its id alone."""
        words = _words_of(name or "")
        if account_id in self._names:
            if self._names[account_id] == words:
                return
            self._forget(account_id)
        else:
            _append(self._ids, fold(account_id), account_id)
        self._names[account_id] = words
        for phrase in _phrases_of(words):
            _append(self._phrases, phrase, account_id)
        for word in _content(words):
            if word not in self._words:
                for edge in _edges_of(word):
                    _append(self._edges, edge, word)
            # Beyond a crowd the word names nobody, so later accounts need not be kept.
            if len(self._words.get(word, ())) <= CROWD:
                _append(self._words, word, account_id)

    def find(self, tokens: Sequence[Token], *, known: Collection[str] = frozenset()) -> list[Mention]:
        """Every account named, in order; `known` are words of the request's own language, which are no typos."""
        free = [True] * len(tokens)
        whole = [*self._by_id(tokens, free), *self._by_name(tokens, free)]
        parts = list(self._by_part(tokens, free, known))
        if any(tokens[mention.start].capital for mention in whole):
            # Who writes one name with a capital writes them all so; "give me" is then no company called Give.
            parts = [part for part in parts if part.start and tokens[part.start].capital]
        return sorted([*whole, *parts], key=lambda mention: mention.start)

    def _forget(self, account_id: str) -> None:
        words = self._names[account_id]
        for phrase in _phrases_of(words):
            _remove(self._phrases, phrase, account_id)
        for word in _content(words):
            _remove(self._words, word, account_id)

    def _by_id(self, tokens: Sequence[Token], free: list[bool]) -> Iterator[Mention]:
        for start, token in enumerate(tokens):
            accounts = self._ids.get(fold(token.run)) if token.run_size else None
            if not accounts or (not _looks_like_an_id(token.run) and not _is_introduced(tokens, start)):
                continue
            exact = tuple(account for account in accounts if account == token.run)
            yield _claim(free, start, start + token.run_size, exact or accounts, 0.99)

    def _by_name(self, tokens: Sequence[Token], free: list[bool]) -> Iterator[Mention]:
        for length in range(min(LONGEST_NAME, len(tokens)), 0, -1):
            for start in range(len(tokens) - length + 1):
                span = tokens[start : start + length]
                if not all(free[start : start + length]) or span[0].word in JOINERS or span[-1].word in JOINERS:
                    continue
                said = tuple(token.word for token in span if token.word not in JOINERS and token.word != "&")
                accounts = self._phrases.get(" ".join(said))
                if accounts:
                    if len(said) == 1 and all(self._names[account] != said for account in accounts):
                        # "Acme" may be Acme Corp, but Acme Europe as well.
                        accounts = tuple(dict.fromkeys((*accounts, *self._words.get(said[0], ()))))
                    confidence = self._trust(span, start)
                    if confidence:
                        yield _claim(free, start, start + length, accounts, confidence)

    def _trust(self, span: Sequence[Token], start: int) -> float:
        """How sure a whole name is: common words need capitals, one in a sentence's first place says little."""
        telling = [token for token in span if token.word not in ARTICLES]
        if any(token.word not in self.common and token.word not in LEGAL for token in telling):
            return 0.95
        if any(token.word in LEGAL for token in telling):
            return 0.9
        if all(token.capital for token in telling):
            return 0.7 if start == 0 and len(span) == 1 else 0.9
        return 0.45 if len(telling) > 1 else 0.0

    def _by_part(self, tokens: Sequence[Token], free: list[bool], known: Collection[str]) -> Iterator[Mention]:
        """Accounts that share telling words with the text; a typo counts when no word is spelt so."""
        start = 0
        while start < len(tokens):
            accounts, sure = self._behind(tokens[start], known) if free[start] else ((), 0.0)
            if not accounts:
                start += 1
                continue
            stop, matched, kept = start + 1, 1, set(accounts)
            while stop < len(tokens) and free[stop]:
                more, trust = self._behind(tokens[stop], known)
                common = kept & set(more) or {a for a in kept if tokens[stop].word in self._names[a]}
                if not common:
                    break
                kept, sure, matched, stop = common, min(sure, trust or sure), matched + 1, stop + 1
            best = sorted(kept)
            share = max(matched / max(1, len(_content(self._names[account]))) for account in best)
            confidence = round(sure * (0.75 + 0.25 * min(1.0, share)), 3)
            yield _claim(free, start, stop, tuple(best[:CROWD]), confidence)
            start = stop

    def _behind(self, token: Token, known: Collection[str]) -> tuple[tuple[str, ...], float]:
        """Accounts whose name holds this word, and how far to trust it."""
        word = token.word
        if word in LEGAL or word in ARTICLES or len(word) < 3:
            return (), 0.0
        if word in self.common or word in GENERIC:
            return (), 0.0
        accounts = self._words.get(word)
        if accounts:
            return (accounts, 0.9) if len(accounts) <= CROWD else ((), 0.0)
        if word in known or len(word) < 5:
            return (), 0.0
        near = {
            near: None
            for edge in _edges_of(word)
            for near in self._edges.get(edge, ())
            if near not in self.common and near != word and within_one_edit(word, near)
        }
        behind = sorted({account for other in near for account in self._words.get(other, ())})
        return (tuple(behind), TYPO) if 0 < len(behind) <= CROWD else ((), 0.0)


def _claim(free: list[bool], start: int, stop: int, accounts: tuple[str, ...], confidence: float) -> Mention:
    free[start:stop] = [False] * (stop - start)
    return Mention(start, stop, accounts, confidence)


def _looks_like_an_id(run: str) -> bool:
    return any(char.isdigit() for char in run) and any(not char.isdigit() for char in run)


def _is_introduced(tokens: Sequence[Token], start: int) -> bool:
    """A bare number or word is an id only after the word for it."""
    return start > 0 and tokens[start - 1].word in {"account", "accounts", "customer", "client", "compte", "id"}


def _words_of(name: str) -> tuple[str, ...]:
    return tuple(token.word for token in tokens_of(name) if token.word not in JOINERS and token.word != "&")


def _content(words: Sequence[str]) -> tuple[str, ...]:
    telling = tuple(
        dict.fromkeys(word for word in words if word not in LEGAL and word not in ARTICLES and len(word) > 1)
    )
    return telling or tuple(dict.fromkeys(words))


def _phrases_of(words: Sequence[str]) -> tuple[str, ...]:
    """The name as said: whole, without its legal form, without its article."""
    if not words:
        return ()
    short = list(words)
    while len(short) > 1 and short[-1] in LEGAL:
        short.pop()
    bare = short[1:] if len(short) > 1 and short[0] in ARTICLES else short
    return tuple(dict.fromkeys((" ".join(words), " ".join(short), " ".join(bare))))


def _edges_of(word: str) -> tuple[str, ...]:
    """A single typo in six letters or more leaves the first or the last three intact."""
    return (word[:3], f"~{word[-3:]}") if len(word) >= 5 else ()


def _append(index: dict[str, tuple[str, ...]], key: str, value: str) -> None:
    held = index.get(key)
    index[key] = (value,) if held is None else held if value in held else (*held, value)


def _remove(index: dict[str, tuple[str, ...]], key: str, value: str) -> None:
    left = tuple(held for held in index.get(key, ()) if held != value)
    if left:
        index[key] = left
    else:
        index.pop(key, None)


__all__ = ["AccountIndex", "Mention", "Token", "fold", "tokens_of", "within_one_edit"]
