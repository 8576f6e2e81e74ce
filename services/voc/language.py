"""Words: one comment cut into folded tokens, its language, and light stems, in French and English."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection

COVERED = ("en", "fr")
UNKNOWN = "und"

_FOLD = str.maketrans(
    {
        "’": "'", "‘": "'", "ʼ": "'", "`": "'", "´": "'", "œ": "oe", "æ": "ae", "ß": "ss", "…": ".", "«": " ", "»": " ",
        "“": " ", "”": " ", '"': " ", "–": ",", "—": ",", "\u00a0": " ", "\u202f": " ", "\r": " ", "\u00ad": None,
    }
    | {
        letter: base
        for base, letters in {
            "a": "àáâãäå", "c": "ç", "e": "èéêë", "i": "ìíîï", "n": "ñ", "o": "òóôõöø", "u": "ùúûü", "y": "ýÿ",
        }.items()
        for letter in letters
    }
)  # fmt: skip
_SPLIT = re.compile(
    r"https?://\S+|\S+@\S+\.\w+"  # addresses say nothing about mood or theme
    r"|[^\W_]+|[.!?;:,()\n]|[\U0001F300-\U0001FAFF\u2600-\u27BF]|<3"
)
_STRETCH = re.compile(r"([a-z])\1{2,}")
_EMOTICON = re.compile(r"(?<!\w)(?:[:;=]-?[)D]|\^\^)(?!\w)")
_FROWN = re.compile(r"(?<!\w)(?:[:;=]'?-?[(/])(?!\w)")
SMILE, FROWN = "\U0001f642", "\U0001f641"
BREAKS = frozenset(".!?;\n")
PUNCTUATION = frozenset(".!?;:,()\n")


def fold(text: str) -> str:
    """Lower case without accents; apostrophes and quotation marks in one form."""
    low = text.lower().translate(_FOLD)
    if low.isascii():
        return low
    return unicodedata.normalize("NFC", low).translate(_FOLD)


def tokens_of(text: str) -> list[str]:
    """Folded words and punctuation marks; negations are spelt out (`isn't` → `is not`), elisions cut off."""
    if ":" in text or ";" in text or "=" in text or "^" in text:
        text = _FROWN.sub(f" {FROWN} ", _EMOTICON.sub(f" {SMILE} ", text))
    low = fold(text)
    if "'" in low:
        low = low.replace("can't", "can not").replace("n't", " not").replace("aujourd'hui", "aujourdhui")
        low = low.replace("'", " ")
    low = low.replace("cannot", "can not").replace("e-mail", "email").replace("-", " ")
    low = _STRETCH.sub(r"\1\1", low)
    return [token for token in _SPLIT.findall(low) if "@" not in token and not token.startswith("http")]


FUNCTION_WORDS: dict[str, frozenset[str]] = {
    "en": frozenset(
        (
            "the and is are was were be been to of in it its that this these those for with we our you "
            "your they their i my me have has had not do does did on at as but or an by from would could "
            "should can will there when which who what how about very too so if just than then also only "
            "still because more most some any all no never please thanks thank after before into out up us "
            "them he she his her am being cannot every really today now well even much one two three over "
            "off again ever always here where since year years day days week weeks month months last first "
            "next many other another same both each few nothing something everything anything nobody "
            "everyone someone get got gets need needs want use used using make makes made works work great "
            "good bad better best new old without during through while until against between under yes "
            "overall far hardly why whose whom went go goes going let lets"
        ).split()
    ),
    "fr": frozenset(
        (
            "le la les un une des du de et est sont etait etaient etre ete a au aux en dans que qui quoi "
            "ne pas plus ce cette ces cet ca cela nous notre nos vous votre vos je j l d n c s qu on il "
            "elle ils elles mon ma mes son sa ses leur leurs pour par avec sans sur sous mais ou donc car "
            "ni si tres trop bien tout tous toute toutes fait faire ai avons avez ont avait avaient y se "
            "meme comme quand depuis encore toujours jamais rien aucun aucune merci bonjour peu peut alors "
            "aussi entre chez lors dont nouveau nouvelle nouveaux bon bonne mauvais beaucoup vraiment deja "
            "maintenant apres avant aujourdhui hier demain jour jours semaine mois annee an ans fois autre "
            "autres memes chaque plusieurs quelques certains tant autant ainsi puis parce afin malgre "
            "pendant vers contre sauf voir faut faudrait va vont vais allons peuvent pouvez pouvons peux "
            "veut voulons voudrais sera seront serait suis etes sommes fut eu moi toi lui eux soi mieux "
            "moins mal grace celui celle ceux dire dit mise oui non presque enfin surtout"
        ).split()
    ),
    "de": frozenset(
        (
            "der die das und ist nicht ein eine ich wir sie mit auf fur den dem zu es auch sehr aber wird "
            "haben"
        ).split()
    ),
    "es": frozenset(
        (
            "el los las y es no una con por para del muy pero como esta lo se nos hay mas todo son fue"
        ).split()
    ),
    "it": frozenset(
        (
            "il lo gli e non una con per del della molto ma come sono che di questo anche piu siamo"
        ).split()
    ),
    "nl": frozenset(
        (
            "het een en is niet van wij met voor op dat zijn maar ook zeer wordt naar niets geen"
        ).split()
    ),
    "pt": frozenset(
        (
            "o os as e nao uma com por para do da muito mas como esta isso mais nos sao foi"
        ).split()
    ),
}  # fmt: skip
_SHARED_WITH = {
    language: frozenset().union(*(words for other, words in FUNCTION_WORDS.items() if other != language))
    for language in FUNCTION_WORDS
}
MINIMUM_FOREIGN = 3


def language_of(
    tokens: Collection[str], english: Collection[str] = (), french: Collection[str] = (), given: str | None = None
) -> str:
    """The language as given (`fr-FR` → `fr`), else by function words, else by which lexicon knows more words.

    Another language than French or English is named only on clear evidence: three function words of its own
    more than either has. Nothing known at all: `und`.
    """
    if given:
        return given.strip().lower().replace("_", "-").split("-")[0] or UNKNOWN
    weights: dict[str, float] = {}
    for language, words in FUNCTION_WORDS.items():
        shared = _SHARED_WITH[language]
        weights[language] = sum((0.5 if token in shared else 1.0) for token in tokens if token in words)
    weights["en"] += 0.4 * sum(1 for token in tokens if token in english)
    weights["fr"] += 0.4 * sum(1 for token in tokens if token in french)
    covered = max(COVERED, key=lambda language: (weights[language], language == "en"))
    best = max(weights, key=lambda language: (weights[language], language == covered))
    if best not in COVERED and weights[best] >= weights[covered] + MINIMUM_FOREIGN:
        return best
    return covered if weights[covered] > 0 else UNKNOWN


_FRENCH_ENDINGS = tuple(
    (
        "ivements ivement eraient erions assent issent issait issant ements ations eriez eront erait erais "
        "erons antes aient ement ation ables ibles euses erez able ible euse ives erai eras ante ants ages "
        "ive age era ent ons ait ais ant ees eur eux ez er ee es if ir it is e x i"
    ).split()
)  # fmt: skip
_KEPT = 4


def stem_fr(word: str) -> str:
    """A light French stem: plural, gender and the endings of regular verbs; never under four letters."""
    if len(word) <= _KEPT or not word.isalpha():
        return word
    if word[-1] == "s" and len(word) > _KEPT:
        word = word[:-1]
    if word.endswith("aux") and len(word) > 5:
        word = word[:-3] + "al"
    for ending in _FRENCH_ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= _KEPT:
            word = word[: -len(ending)]
            break
    if word.endswith("i") and len(word) > _KEPT:
        word = word[:-1]
    if len(word) > _KEPT and word[-1] == word[-2]:
        word = word[:-1]
    return word


def stem_en(word: str) -> str:
    """A light English stem: plural, -ed, -ing, -er, -est, -ly, -ness and a final e; never under three letters."""
    if len(word) <= 3 or not word.isalpha():
        return word
    if word.endswith("ies"):
        word = word[:-3] + "y"
    elif word.endswith(("sses", "shes", "ches", "xes", "zes")):
        word = word[:-2]
    elif word[-1] == "s" and word[-2] not in "su":
        word = word[:-1]
    for ending in ("fulness", "ness", "ably", "ingly", "ing", "edly", "ed", "ly", "est", "er"):
        if word.endswith(ending) and len(word) - len(ending) >= (4 if ending in ("er", "est") else 3):
            word = word[: -len(ending)]
            if ending == "ably":
                word += "able"
            if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "lsz":
                word = word[:-1]
            break
    if word.endswith("ful") and len(word) > 5:
        return word
    if word[-1] == "e" and len(word) > 3:
        word = word[:-1]
    if word[-1] == "i" and len(word) > 3:
        word = word[:-1] + "y"
    return word


STEMMERS = {"en": stem_en, "fr": stem_fr}
