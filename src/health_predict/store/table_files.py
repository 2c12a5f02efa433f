"""Tables in files, CSV or Parquet, read in pieces of bounded size with every line accounted for."""

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import polars as pl

from health_predict.data.csv_lines import Layout, check_last_line, layout, one_line_end, rows, without_blank_end
from health_predict.data.schema import FIELD
from health_predict.errors import DataError, StorageError
from health_predict.store.places import Part, parts, shown

_BLOCK = 8 * 2**20  # bytes of CSV at a time
_LONGEST_LINE = 2**20  # bytes; a longer one is no line of encounters


@dataclass
class Account:
    """Count of what has been read so far: `lines` that hold a row, and `blank` lines at the end of files."""

    lines: int = 0
    blank: int = 0
    open_end: bool = False  # a file's last line has no line end


Chosen = Mapping[str, int]  # name that a column gets -> its position in the file
Pieces = Callable[[Chosen, int, Account], Iterator[pl.DataFrame]]  # about so many rows each


@dataclass(frozen=True)
class Table:
    """One file. `columns` are in its order, as it spells them, which may be twice; `types` are theirs.

    `rows` is None where only reading tells. `pieces` gives the rows in order; reading enters them into an account.
    """

    name: str
    columns: tuple[str, ...]
    types: tuple[pl.DataType, ...]
    rows: int | None
    pieces: Pieces
    values: Mapping[str, str | None]  # of every row, from the folders that the file is below


def open_tables(source: str, endpoint: str | None = None) -> Iterator[Table]:
    """The files that the source is, each looked at when its turn comes; parts without a single byte are left out.

    Raises StorageError when one is not there or cannot be read, DataError when one is not what its name says.
    """
    found = parts(source, endpoint)
    empty = True
    for part in found:
        table = _parquet(part) if part.form.kind == "parquet" else _csv(part)
        if table:
            empty = False
            yield table
    if empty:
        raise DataError(f"{shown(source)} is empty: it has no header")


def _csv(part: Part) -> Table | None:
    with part.open() as stream:
        header = next(_lines(stream, part.name, _LONGEST_LINE), b"")
    if not header:
        return None
    line = header.partition(b"\n")[0]
    found = layout(line, part.form.separator, part.name)

    def pieces(chosen: Chosen, size: int, account: Account) -> Iterator[pl.DataFrame]:
        selected = [pl.col(str(position)).alias(name) for name, position in chosen.items()]
        with part.open() as stream:
            for block in _rows(stream, line, found, part.name, account):
                yield from block.select(selected).iter_slices(size)

    return Table(part.name, found.columns, (pl.String(),) * len(found.columns), None, pieces, part.values)


def _rows(stream: BinaryIO, header: bytes, found: Layout, name: str, account: Account) -> Iterator[pl.DataFrame]:
    """Blocks of rows after the header; refuses a blank line before the last row, and a last row that is not whole."""
    line, blank = 1, 0
    for lines in _lines(stream, name, _BLOCK):
        block = lines
        if line == 1:
            again, _, block = lines.partition(b"\n")
            if again != header:
                break
            line = 2
        block, ends = without_blank_end(block, found.separator)
        if blank and block:
            raise DataError(f"{name} has blank lines before its last row: line {line - blank} is blank; leave them out")
        if block:
            table = rows(block, found, line, name)
            check_last_line(block, found.separator, name)
            account.open_end |= not block.endswith(b"\n")
            account.lines += table.height
            line += table.height
            yield table
        blank += ends
        line += ends
    if line == 1:
        raise StorageError(f"{name} has another header than when it was opened: is it being written?")
    account.blank += blank


def _lines(stream: BinaryIO, name: str, size: int) -> Iterator[bytes]:
    r"""The file in blocks of whole lines that end with \n, about `size` bytes each; the last line may lack its end."""
    rest = b""
    done = 0
    try:
        while data := stream.read(size):
            data = rest + data
            held = data.endswith(b"\r")  # perhaps the first half of a line end
            block = one_line_end(data.removesuffix(b"\r") if held else data)
            cut = block.rfind(b"\n") + 1
            rest = block[cut:] + (b"\r" if held else b"")
            if len(rest) > _LONGEST_LINE and not cut:
                raise DataError(f"{name} has a line of more than {_LONGEST_LINE:,} bytes; is it another kind of file?")
            done += len(data)
            if cut:
                yield block[:cut]
    except (EOFError, zlib.error, OSError) as error:
        raise _unreadable(name, error) from None
    if rest:
        yield one_line_end(rest)


def _unreadable(name: str, error: Exception) -> Exception:
    if isinstance(error, OSError) and error.errno is not None:
        return StorageError(f"{name} cannot be read: {error.strerror or type(error).__name__}")
    return DataError(f"{name} cannot be unpacked: it is cut short, damaged, or not compressed with gzip")


def _parquet(part: Part) -> Table:
    """By pyarrow and not polars, which a damaged file can bring to end the process."""
    import pyarrow as pa  # noqa: PLC0415  # .2 s that no other command needs
    import pyarrow.parquet as pq  # noqa: PLC0415

    damaged = (pa.ArrowException, MemoryError, UnicodeDecodeError, OSError)
    try:
        with part.open() as stream, pq.ParquetFile(stream) as file:
            schema, height = file.schema_arrow, file.metadata.num_rows
        columns, types = tuple(schema.names), tuple(_type(field.type) for field in schema)
    except damaged:
        raise _no_parquet(part.name) from None

    def pieces(chosen: Chosen, size: int, account: Account) -> Iterator[pl.DataFrame]:
        named = {name: columns[position] for name, position in chosen.items()}
        categories = [name for name in chosen if name in FIELD and not FIELD[name].is_number]
        repeated = [columns[chosen[name]] for name in categories if types[chosen[name]] == pl.String]
        done = 0
        try:
            with (
                part.open() as stream,
                pq.ParquetFile(
                    stream, pre_buffer=True, read_dictionary=repeated, page_checksum_verification=True
                ) as file,
            ):
                for batch in file.iter_batches(size, columns=list(named.values())):
                    piece = pl.DataFrame([_series(name, batch.column(column)) for name, column in named.items()])
                    done += piece.height
                    account.lines += piece.height
                    yield piece
        except damaged:
            raise _cut(part.name, done) from None
        if done != height:
            raise _cut(part.name, done)

    return Table(part.name, columns, types, height, pieces, part.values)


def _type(kind: Any) -> pl.DataType:
    """What polars makes of values of an Arrow type; Unknown where it makes nothing of them."""
    import pyarrow as pa  # noqa: PLC0415

    if pa.types.is_decimal256(kind):
        return pl.Unknown()
    try:
        return pl.Series(pl.from_arrow(pa.array([], kind))).dtype
    except pl.exceptions.PolarsError:
        return pl.Unknown()


def _series(name: str, values: Any) -> pl.Series:
    """Checked first: polars takes the word of Arrow that texts are UTF-8 and positions are inside."""
    import pyarrow as pa  # noqa: PLC0415

    values.validate(full=True)
    if not pa.types.is_dictionary(values.type):
        return pl.Series(name, pl.from_arrow(values))
    texts, positions = pl.Series(pl.from_arrow(values.dictionary)), pl.Series(pl.from_arrow(values.indices))
    return texts.gather(positions).alias(name)


def _no_parquet(name: str) -> DataError:
    return DataError(f"{name} is not a readable parquet file; was it cut short, or is it another kind of file?")


def _cut(name: str, row: int) -> DataError:
    # `from None` where it is raised: the original error may hold the values.
    return DataError(f"{name} cannot be read to its end after row {row}; was it cut short?")
