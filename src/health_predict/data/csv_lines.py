"""Parses lines of CSV to rows of texts; no line is filled up, trimmed, joined or left out.

A line with another number of fields than the header is refused: a short line may have lost any of its fields. Quotes
enclose whole fields; a field holds no line end. Blank lines are allowed at the end only. Messages name lines by number
and never repeat their content.
"""

import re
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import polars as pl

from health_predict.errors import DataError

COMMA, TAB = b",", b"\t"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SHOWN = 5  # lines named in a message
_NEWLINE, _QUOTE = ord("\n"), ord('"')
_SIGNS = {  # first bytes of files that are no CSV, or not in UTF-8
    b"\xff\xfe": "is UTF-16 text (Excel's Unicode text?); save it as CSV UTF-8",
    b"\xfe\xff": "is UTF-16 text (Excel's Unicode text?); save it as CSV UTF-8",
    b"PAR1": "is a Parquet file; name it .parquet",
    b"PK\x03\x04": "is a zip or a spreadsheet; unpack it, or save it as CSV UTF-8",
    b"\xd0\xcf\x11\xe0": "is a spreadsheet; save it as CSV UTF-8",
    b"\x1f\x8b": "is compressed with gzip; name it .csv.gz",
}


@dataclass(frozen=True)
class Layout:
    """The columns of a file as its header spells them, and its separator."""

    columns: tuple[str, ...]
    separator: bytes


def layout(header: bytes, separator: bytes, name: str) -> Layout:
    """The layout in the first line, given without its line end. Raises DataError where it cannot be a CSV header."""
    header = header.removeprefix(BYTE_ORDER_MARK)
    for sign, said in _SIGNS.items():
        if header.startswith(sign):
            raise DataError(f"{name} {said}")
    if b"\0" in header:
        raise DataError(f"{name} is UTF-16 text, or no text; save it as CSV UTF-8")
    if header.count(separator) == 0:
        _refuse_other_separator(header, separator, name)
    _check_encoding(header, 1, name)
    if not _LINE[separator].fullmatch(header):
        raise DataError(f"the header of {name} has a quote that does not open or close a column's name")
    return Layout(tuple(_unquoted(field) for field in _FIELD[separator].findall(header)), separator)


def one_line_end(block: bytes) -> bytes:
    r"""The block with the line ends of Windows or an old Mac as \n. The block must not end between \r and \n."""
    return block.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in block else block


def without_blank_end(block: bytes, separator: bytes) -> tuple[bytes, int]:
    """The block without the blank lines at its end, and their number; lines of separators only count as blank."""
    filled = len(block.rstrip(b" \t\n" + separator))
    end = block.find(b"\n", filled) + 1 if filled else 0
    if filled and not end:
        return block, 0
    blank = block.count(b"\n", end) + (len(block) > end and not block.endswith(b"\n"))
    return block[:end], blank


def check_last_line(lines: bytes, separator: bytes, name: str) -> None:
    """Raise DataError where the file ends with a separator: it may have been cut short before the last value."""
    if lines.endswith(separator):
        raise DataError(
            f"{name} ends inside its last line, which has neither a last value nor a line end: was it cut short? "
            "If it is whole, end the line"
        )


def rows(block: bytes, layout: Layout, first_line: int, name: str) -> pl.DataFrame:
    """One row of texts for each line, in order; columns are numbered, as a header may repeat names.

    The block has whole lines only; `first_line` is the number of its first line in the file. Raises DataError naming
    the lines that have another number of fields than the header, or are not UTF-8.
    """
    lines, fits = _measure(block, layout)
    schema = {str(position): pl.String for position in range(len(layout.columns))}
    table = None
    if fits:
        try:
            table = pl.read_csv(
                block, has_header=False, schema=schema, separator=layout.separator.decode(),
                quote_char='"' if b'"' in block else None, empty_string_is_null=False,
            )  # fmt: skip
        except pl.exceptions.PolarsError:
            table = None  # its message would repeat values; the lines are named below
    if table is None or table.height != lines:
        _check_encoding(block, first_line, name)
        _refuse_lines(block, layout, first_line, name)
    return table


def _measure(block: bytes, layout: Layout) -> tuple[int, bool]:
    """Number of lines, and whether all of them can have as many fields as the header.

    Without quotes the total of separators decides: the reader refuses lines with too many, so none has too few.
    """
    data = np.frombuffer(block, np.uint8)
    lines = int(np.count_nonzero(data == _NEWLINE)) + (not block.endswith(b"\n"))
    separators = int(np.count_nonzero(data == layout.separator[0]))
    if b'"' in block:
        if not _quotes_fit(data, layout.separator):
            return lines, False
        separators = _outside(data, layout.separator)
    return lines, separators == lines * (len(layout.columns) - 1)


def _quotes_fit(data: np.ndarray, separator: bytes) -> bool:
    """Whether every quote opens or closes a field of its line, or is one of a pair that stands for a quote."""
    quotes = np.flatnonzero(data == _QUOTE)
    if len(quotes) % 2 or (np.searchsorted(quotes, np.flatnonzero(data == _NEWLINE)) % 2).any():
        return False
    beside = np.zeros(256, dtype=bool)
    beside[[separator[0], _NEWLINE, _QUOTE]] = True
    padded = np.concatenate(([_NEWLINE], data, [_NEWLINE]))
    return bool(beside[padded[quotes[0::2]]].all() and beside[padded[quotes[1::2] + 2]].all())


def _outside(data: np.ndarray, separator: bytes) -> int:
    """Number of separators that are not inside quotes."""
    quotes, separators = np.flatnonzero(data == _QUOTE), np.flatnonzero(data == separator[0])
    return int((np.searchsorted(quotes, separators) % 2 == 0).sum())


_FIELDS = {separator: rb'"(?:[^"\n]|"")*"|[^"\n' + separator + rb"]*" for separator in (COMMA, TAB)}
_LINE = {
    separator: re.compile(rb"(?:" + field + rb")(?:" + separator + rb"(?:" + field + rb"))*")
    for separator, field in _FIELDS.items()
}
_FIELD = {
    separator: re.compile(rb"(?:^|(?<=" + separator + rb"))(" + field + rb")(?=" + separator + rb"|$)")
    for separator, field in _FIELDS.items()
}


def _unquoted(field: bytes) -> str:
    return (field[1:-1].replace(b'""', b'"') if field.startswith(b'"') else field).decode().strip()


def _refuse_lines(block: bytes, layout: Layout, first_line: int, name: str) -> NoReturn:
    expected, field, whole = len(layout.columns), _FIELD[layout.separator], _LINE[layout.separator]
    found = []
    for number, line in enumerate(block.removesuffix(b"\n").split(b"\n"), first_line):
        if not line.strip():
            found.append(f"line {number} is blank")
        elif not whole.fullmatch(line):
            found.append(f"line {number} has a quote that does not open or close a field")
        elif (count := len(field.findall(line)) if b'"' in line else line.count(layout.separator) + 1) != expected:
            found.append(f"line {number} has {count} fields")
    if not found:
        raise DataError(f"{name} cannot be read as CSV after line {first_line - 1}")
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    raise DataError(
        f"{name} has lines that are not {expected} fields: {', '.join(found[:_SHOWN])}{more}. Was the file cut short? "
        "Spreadsheets leave empty cells at the end of a line out, and decimal commas and free text need quotes"
    )


def _refuse_other_separator(header: bytes, separator: bytes, name: str) -> None:
    named = {b";": "semicolons", b"\t": "tabs", b",": "commas", b"|": "bars"}
    likely = max(named, key=header.count)
    if header.count(likely) > 1:
        kind = ", or name it .tsv" if likely == TAB else ", or name it .csv" if likely == COMMA else ""
        raise DataError(
            f"the columns of {name} are separated by {named[likely]}, not by {named[separator]}: write it with "
            f"{named[separator]}{kind}"
        )


def _check_encoding(block: bytes, first_line: int, name: str) -> None:
    try:
        block.decode()
    except UnicodeDecodeError as error:
        line = first_line + block.count(b"\n", 0, error.start)
        # `from None`: the original error holds the lines.
        raise DataError(
            f"{name} is not UTF-8 text: line {line} has a byte that means nothing in it. "
            "Is it Latin-1 (Windows-1252), as older spreadsheets write? Save it as CSV UTF-8"
        ) from None
