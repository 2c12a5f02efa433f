"""Where a file of encounters is: a local file or object of S3, or a folder whose parts are one file.

A name is a name: `[`, `]`, `?`, `*` and `%` mean nothing in it. A folder is what Spark and pandas write: parts in the
order of their names, below folders `field=value` where it was partitioned; names that begin with
`_` or `.` are no parts.
"""

import gzip
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Literal, NoReturn
from urllib.parse import unquote

from health_predict.data.csv_lines import COMMA, TAB
from health_predict.errors import DataError, StorageError
from health_predict.store.s3_objects import Objects, split_address

KINDS = ".csv, .tsv, .csv.gz, .tsv.gz or .parquet"
_SEPARATORS = {".csv": COMMA, ".tsv": TAB}
_UNFINISHED = "_temporary"  # where Spark writes before it is done
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class Form:
    """How a file is written, as its name's ending says."""

    kind: Literal["csv", "parquet"]
    separator: bytes = COMMA
    compressed: bool = False


@dataclass(frozen=True)
class Part:
    """One file. `open` gives its content as it is written, without compression; `name` is for messages.

    `values` are those of the folders `field=value` that it is below.
    """

    name: str
    form: Form
    open: Callable[[], BinaryIO]
    path: Path | None = None  # where it is local
    values: Mapping[str, str | None] = field(default_factory=dict)


def shown(place: str) -> str:
    """The path or address as printable text: bytes of a file name that are not UTF-8 are replaced."""
    return os.fsencode(place).decode(errors="replace")


def form_of(place: str) -> Form:
    """The format that the file name's ending names; DataError for any other ending."""
    endings = PurePosixPath(place.lower()).suffixes
    compressed = endings[-1:] == [".gz"]
    ending = "".join(endings[:-1][-1:] if compressed else endings[-1:])
    if ending == ".parquet":
        return Form("parquet")
    if ending not in _SEPARATORS:
        raise DataError(f"{shown(place)} is neither {KINDS}")
    return Form("csv", _SEPARATORS[ending], compressed)


def is_remote(place: str) -> bool:
    """Whether the path is an s3:// address. StorageError for an address of another scheme."""
    if place.startswith("s3://"):
        return True
    if "://" in place:
        raise StorageError(f"{shown(place)} is neither a local file nor s3://bucket/key")
    return False


def parts(source: str, endpoint: str | None = None) -> list[Part]:
    """The files of a source, in order: the file itself, or the parts in the folder.

    Raises StorageError when there is nothing or it cannot be read, DataError when it is of no kind that is read.
    """
    return _remote_parts(source, endpoint) if is_remote(source) else _local_parts(source)


def same_place(source: str, target: str) -> bool:
    """Whether writing the target would replace the source or a part of it: by the file itself, not its name."""
    if is_remote(source) or is_remote(target):
        folder = source.rstrip("/") + "/"
        return is_remote(source) == is_remote(target) and (target == source or target.startswith(folder))
    one, other = Path(source).expanduser(), Path(target).expanduser()
    if one.is_dir():
        inside = any(one.samefile(parent) for parent in other.resolve().parents if parent.exists())
        return inside or any(_is_same(one / name, other) for name in _names(one))
    return _is_same(one, other)


def _is_same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


def _local_parts(source: str) -> list[Part]:
    place = Path(source).expanduser()
    if not place.exists():
        raise StorageError(f"{shown(source)} does not exist")
    if not place.is_dir():
        return [_local(place, {})]
    return [_local(place / name, values) for name, values in _chosen(_names(place), shown(source)).items()]


def _names(place: Path) -> list[str]:
    """What is below a local folder, links followed, readable or not: nothing is passed over in silence.

    Folders that begin with `_` or `.` are, but for `_temporary`. Raises StorageError where a folder cannot be read, or
    is one that was read already.
    """
    found: list[str] = []
    read: set[tuple[int, int]] = set()
    for folder, folders, files in os.walk(place, followlinks=True, onerror=_raise):
        about = Path(folder).stat()
        if (about.st_dev, about.st_ino) in read:
            raise StorageError(f"{shown(folder)} is a link to a folder that was read already")
        read.add((about.st_dev, about.st_ino))
        folders[:] = [name for name in folders if name == _UNFINISHED or not _is_set_aside(name)]
        found += [(Path(folder).relative_to(place) / file).as_posix() for file in files]
    return found


def _raise(error: OSError) -> NoReturn:
    raise StorageError(f"{shown(str(error.filename))} cannot be read: {error.strerror}") from error


def _is_set_aside(name: str) -> bool:
    return any(part.startswith(("_", ".")) for part in name.split("/"))


def _local(path: Path, values: Mapping[str, str | None]) -> Part:
    form, name = form_of(str(path)), shown(str(path))
    if path.exists() and not path.is_file():
        raise DataError(f"{name} is a pipe or a device, which can be read once only: write it to a file first")

    def read() -> BinaryIO:
        try:
            return _unpacked(path.open("rb"), form)
        except OSError as error:
            raise StorageError(f"{name} cannot be read: {error.strerror or type(error).__name__}") from error

    return Part(name, form, read, path, values)


def _remote_parts(source: str, endpoint: str | None) -> list[Part]:
    objects = Objects(endpoint)
    if not source.endswith("/") and objects.size(source) is not None:
        return [_remote(objects, source, {})]
    found = objects.below(source)
    if not found:
        raise StorageError(f"{shown(source)} does not exist")
    folder = source.rstrip("/")
    return [_remote(objects, f"{folder}/{name}", values) for name, values in _chosen(found, shown(source)).items()]


def _remote(objects: Objects, address: str, values: Mapping[str, str | None]) -> Part:
    form = form_of(split_address(address)[1])
    return Part(shown(address), form, lambda: _unpacked(objects.open(address), form), None, values)


def _unpacked(stream: BinaryIO, form: Form) -> BinaryIO:
    return _Unpacked(stream) if form.compressed else stream  # type: ignore[return-value]


class _Unpacked(gzip.GzipFile):
    """Closes what it reads from."""

    def __init__(self, packed: BinaryIO):
        super().__init__(fileobj=packed)
        self._packed = packed

    def close(self) -> None:
        super().close()
        self._packed.close()


def _chosen(names: list[str], folder: str) -> dict[str, dict[str, str | None]]:
    """The parts among the names below a folder, in order, with the values of the folders above them."""
    if any(name.startswith(f"{_UNFINISHED}/") for name in names) and "_SUCCESS" not in names:
        raise DataError(f"{folder} is still being written, or its writer failed: it has no _SUCCESS")
    chosen = {name: _values(name, folder) for name in sorted(names) if not _is_set_aside(name)}
    if not chosen:
        raise DataError(f"{folder} is a folder without files that are {KINDS}")
    if len({(form_of(name).kind, tuple(sorted(values))) for name, values in chosen.items()}) > 1:
        raise DataError(f"{folder} has files of different kinds, or below different folders; give one of them")
    return chosen


def _values(name: str, folder: str) -> dict[str, str | None]:
    """The values that the folders above a part say, by field as the folders spell it."""
    above = name.split("/")[:-1]
    if not all("=" in part for part in above):
        raise DataError(f"{folder} has folders that are not `field=value`; give one of them")
    pairs = (part.partition("=") for part in above)
    return {unquote(key): None if value == _NO_VALUE else unquote(value) for key, _, value in pairs}
