"""csv and JSON-lines files as people have them: byte order marks, CRLF, blank lines, bytes that are no UTF-8."""

import csv
import io
import json
import math
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mmr_jax.errors import UserError, nearest


class Row(NamedTuple):
    """A row and the line it starts at; `intact` is False if bytes of it were no UTF-8 and were read as latin-1."""

    line: int
    cells: Any  # list[str], or a mapping by column or key
    intact: bool


def read_text(path: Path) -> str:
    """The text without its byte order mark. Bytes that are no UTF-8 become lone surrogates, as `mend` expects."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{path} is UTF-16; save it as UTF-8")
    return data.decode("utf-8", "surrogateescape").removeprefix("\ufeff")


def mend(value: Any) -> tuple[Any, bool]:
    """`value` (str, or lists and dicts of them) with undecodable bytes read as latin-1, and whether it had none."""
    if isinstance(value, str):
        if value.isascii() or not any("\ud800" <= c <= "\udfff" for c in value):
            return value, True
        return "".join(map(_mend_character, value)), False
    if isinstance(value, list):
        parts = [mend(v) for v in value]
        return [v for v, _ in parts], all(ok for _, ok in parts)
    if isinstance(value, dict):
        parts = [(*mend(k), *mend(v)) for k, v in value.items()]
        return {k: v for k, _, v, _ in parts}, all(p[1] and p[3] for p in parts)
    return value, True


def csv_rows(path: Path, delimiter: str = ",") -> Iterator[Row]:
    """The rows of a csv file as lists of stripped cells; rows that are blank all over are left out."""
    reader = csv.reader(
        io.StringIO(read_text(path), newline=""), delimiter=delimiter, skipinitialspace=True, strict=True
    )
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise UserError(f"{path} line {line}: {error}; check the quotes from there on") from None
        cells, intact = mend([cell.strip() for cell in cells])
        if any(cells):
            yield Row(line, cells, intact)


def table(path: Path, required: Collection[str], delimiter: str = ",") -> Iterator[Row]:
    """The rows of a csv file with a header, as dicts by column; UserError for a column that is not there."""
    rows = csv_rows(path, delimiter)
    header = next(rows, Row(1, [], True)).cells
    check_header(path, header, required)
    for row in rows:
        if len(row.cells) != len(header):
            raise UserError(f"{path} line {row.line} has {len(row.cells)} cells; the header has {len(header)}")
        yield Row(row.line, dict(zip(header, row.cells, strict=True)), row.intact)


def check_header(path: Path, header: Collection[str], required: Collection[str]) -> None:
    """UserError if a required column is absent or a column is there twice."""
    for column in required:
        if column not in header:
            hint = nearest(column, header) if header else "; the file is empty"
            raise UserError(f"{path} has no column {column!r} (comma-separated columns are expected){hint}")
    twice = [column for k, column in enumerate(header) if column in list(header)[:k]]
    if twice:
        raise UserError(f"{path} has the column {twice[0]!r} twice")


def json_lines(path: Path) -> Iterator[Row]:
    """The objects of a JSON-lines file; blank lines are left out."""
    for line, text in enumerate(read_text(path).split("\n"), 1):  # not splitlines: JSON strings may hold U+2028
        if text.strip():
            value, intact = mend(_json(text, f"{path} line {line}"))
            if not isinstance(value, dict):
                raise UserError(f"{path} line {line} is no JSON object but {type(value).__name__}")
            yield Row(line, value, intact)


def read_json(path: Path) -> tuple[Any, bool]:
    """A publisher's JSON file, and whether it was UTF-8 throughout."""
    return mend(_json(read_text(path), str(path)))


def seconds(text: Any, where: str) -> float:
    """A time as a finite number of at least 0; UserError that begins with `where` otherwise."""
    try:
        value = float(text)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise UserError(f"{where} is {text!r}; expected a number of seconds, 0 or more")
    return value


def span(start: Any, end: Any, where: str) -> tuple[float, float]:
    """Two times of which the second is later; UserError that begins with `where` otherwise."""
    start, end = seconds(start, f"{where}: start"), seconds(end, f"{where}: end")
    if end <= start:
        raise UserError(f"{where}: end {end:g} is not after start {start:g}")
    return start, end


def field(row: Mapping[str, Any], key: str, kind: type, where: str) -> Any:
    """`row[key]` of a publisher's JSON; UserError that begins with `where` if it is absent or of another type."""
    value = row.get(key) if isinstance(row, dict) else None
    if not isinstance(value, kind):
        raise UserError(f"{where}: {key!r} is {value!r}; expected {kind.__name__}")
    return value


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is no JSON: {error}") from None


def _mend_character(c: str) -> str:
    if "\udc80" <= c <= "\udcff":
        return chr(ord(c) - 0xDC00)
    return "\ufffd" if "\ud800" <= c <= "\udfff" else c
