"""What people wrote, as plain text: HTML without its tags, nothing that cannot be stored."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser

MAX_TEXT = 20_000
MAX_HTML = 200_000
"""The parser takes its time over broken HTML, so longer ones are cut before."""
_TAG = re.compile(
    r"</?(?:a|article|b|blockquote|body|br|code|div|em|font|h[1-6]|head|hr|html|i|img|li|ol|p|pre|section|small|span"
    r"|strong|style|sub|sup|table|tbody|td|th|thead|tr|u|ul)\b[^<>]*>",
    re.IGNORECASE,
)
_BREAKS = frozenset("br hr".split())
_BLOCKS = frozenset("article blockquote div h1 h2 h3 h4 h5 h6 li ol p pre section table tr ul".split())
_SILENT = frozenset("script style title".split())


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.said: list[str] = []
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag in _SILENT:
            self._silent += 1
        elif tag in _BREAKS or tag in _BLOCKS:
            self.said.append("\n")
        elif tag in ("td", "th"):
            self.said.append(" ")

    def handle_endtag(self, tag: str) -> None:
        if tag in _SILENT:
            self._silent = max(0, self._silent - 1)
        elif tag in _BLOCKS:
            self.said.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            # A line break in the source is a space on the page.
            self.said.append(re.sub(r"\s+", " ", data))


def plain_text(value: object) -> str | None:
    """The words of a text, of HTML without its tags; None when there are none.

    What holds no tag of HTML is left as it is, so that "a < b" stays. Cut at the contract's 20,000 characters.
    """
    if not isinstance(value, str):
        return None
    text = value[:MAX_HTML].replace("\x00", "")
    if _TAG.search(text):
        text = _without_tags(text)
    text = text.strip()
    return text[:MAX_TEXT].rstrip() or None


def html_text(value: object) -> str | None:
    """The words of a field that always is HTML: entities are read even where there is no tag."""
    if isinstance(value, str) and not _TAG.search(value):
        value = html.unescape(value)
    return plain_text(value)


def _without_tags(text: str) -> str:
    reader = _Reader()
    reader.feed(text)
    reader.close()
    lines = (re.sub(r"[ \t\xa0]+", " ", line).strip() for line in "".join(reader.said).replace("\x00", "").split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines))
