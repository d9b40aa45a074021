"""A page as a browser takes it apart."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

VOID = {"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "source"}


class Page(HTMLParser):
    """Elements and texts of a page, in order.

    Attributes:
        elements: name, attributes and text of each element.
    """

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[Element] = []
        self._open: list[Element] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs), self._open[-1] if self._open else None)
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(Element(tag, dict(attrs), self._open[-1] if self._open else None))

    def handle_endtag(self, tag: str) -> None:
        while self._open and any(element.tag == tag for element in self._open):
            if self._open.pop().tag == tag:
                break

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text += data

    def all(self, tag: str, **attributes: str) -> list[Element]:
        """Elements of a name, with these attributes."""
        return [
            element
            for element in self.elements
            if element.tag == tag and all(element.attributes.get(name) == value for name, value in attributes.items())
        ]

    def one(self, tag: str, **attributes: str) -> Element:
        """The only such element."""
        (found,) = self.all(tag, **attributes)
        return found

    def rows(self, element: Element) -> list[list[str]]:
        """The cells of the body of a table."""
        bodies = [body for body in self.all("tbody") if element in body.around()]
        rows = [row for row in self.all("tr") if any(body in row.around() for body in bodies)]
        return [
            [" ".join(cell.text.split()) for cell in self.elements if cell.tag in {"th", "td"} and cell.parent is row]
            for row in rows
        ]


class Element:
    """An element of a page."""

    def __init__(self, tag: str, attributes: dict[str, Any], parent: Element | None) -> None:
        self.tag = tag
        self.attributes = attributes
        self.parent = parent
        self.text = ""

    def around(self) -> list[Element]:
        """The elements it lies in, the innermost first."""
        return [] if self.parent is None else [self.parent, *self.parent.around()]

    @property
    def words(self) -> str:
        """Its text on one line."""
        return " ".join(self.text.split())
