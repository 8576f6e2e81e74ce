"""XML read without what makes it dangerous: a document type, and with it every entity, is refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from xml.parsers import expat

from services.gateway.webhooks.base import Unreadable

SEPARATOR = "}"
MAX_DEPTH = 32
XSI = "http://www.w3.org/2001/XMLSchema-instance"


@dataclass(slots=True)
class Element:
    """An element by its local name; attributes by `NAMESPACE}name`."""

    name: str
    attributes: dict[str, str]
    children: list[Element] = field(default_factory=list)
    text: str = ""

    def find(self, name: str) -> Element | None:
        return next((child for child in self.children if child.name == name), None)

    def all(self, name: str) -> list[Element]:
        return [child for child in self.children if child.name == name]

    def value(self, name: str) -> str | None:
        """The child's text; None when it is absent, nil or empty."""
        child = self.find(name)
        return None if child is None or child.is_nil else child.text.strip() or None

    @property
    def is_nil(self) -> bool:
        return self.attributes.get(f"{XSI}{SEPARATOR}nil") in ("true", "1")


def read_xml(body: bytes) -> Element:
    """Read a document.

    Raises Unreadable.
    """
    parser = expat.ParserCreate(namespace_separator=SEPARATOR)
    root = Element("", {})
    stack = [root]

    def start(name: str, attributes: dict[str, str]) -> None:
        if len(stack) > MAX_DEPTH:
            raise Unreadable("the XML is nested too deep")
        element = Element(name.rpartition(SEPARATOR)[2], attributes)
        stack[-1].children.append(element)
        stack.append(element)

    def end(name: str) -> None:
        closed = stack.pop()
        closed.text = "".join(pieces.pop(id(closed), ()))

    pieces: dict[int, list[str]] = {}

    def text(data: str) -> None:
        pieces.setdefault(id(stack[-1]), []).append(data)

    def refuse(*_: object) -> Any:
        raise Unreadable("the XML declares a document type, which is refused")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.ExternalEntityRefHandler = refuse
    parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
    try:
        parser.Parse(body, True)
    except expat.ExpatError as error:
        raise Unreadable(f"the body is not XML: {error}") from None
    except (UnicodeDecodeError, ValueError, LookupError) as error:
        raise Unreadable(f"the body is not XML: {type(error).__name__}") from None
    return root.children[0]
