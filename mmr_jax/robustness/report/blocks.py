"""The pieces of a report, free of any markup: each output format renders the same list of blocks."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Heading:
    """A section title."""

    text: str


@dataclass(frozen=True)
class Paragraph:
    """Running text."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """A list of short texts."""

    items: list[str]


@dataclass(frozen=True)
class Table:
    """Rows of finished cell texts; the first column names the row; `bold` holds (row, column) positions."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    note: str = ""
    bold: frozenset[tuple[int, int]] = frozenset()


@dataclass(frozen=True)
class Picture:
    """A PNG; `name` is its file name without folder, `alt` says in words what it shows."""

    name: str
    title: str
    png: bytes
    alt: str


@dataclass(frozen=True)
class Gallery:
    """Pictures that belong together, and one note for all of them."""

    pictures: list[Picture]
    note: str = ""


@dataclass(frozen=True)
class Code:
    """Preformatted text that readers open when they need it."""

    title: str
    text: str


Block = Heading | Paragraph | Bullets | Table | Gallery | Code
