"""From one encounter, or a table of them, to the model's input vector by look-ups alone.

An `Encoder` is the fitted preprocessing written out as plain tables: for every field, what each of its values
adds to which slots of the vector. It is stored as `encoder.json`, so that the service needs neither the
training libraries nor a pickle. The row path and the table path give the same float32 numbers.

A slot takes contributions by addition, or by maximum where several fields may say the same thing (a
comorbidity seen in two diagnoses counts once). Then come combinations (sums of slots), ratios, and, for
linear models, standardisation. Slots after the outputs are intermediate results that no model sees.
"""

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from operator import getitem, itemgetter
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from health_predict.features.diagnoses import normalise

Value = str | int | None
Slot = int
_Parts = tuple[tuple[Slot, float], ...]
_Found = tuple[_Parts, _Parts] | tuple[()]


@dataclass(frozen=True)
class Contribution:
    """What one value of one field brings: amounts added to slots, and amounts that slots must at least reach."""

    sums: tuple[tuple[Slot, float], ...] = ()
    maxima: tuple[tuple[Slot, float], ...] = ()


@dataclass(frozen=True)
class CountTable:
    """A whole number, clipped to 0..maximum, added to its slots; missing counts as 0."""

    maximum: int
    slots: tuple[Slot, ...]


@dataclass(frozen=True)
class CodeTable:
    """What each known value brings; `keys` says how a value is looked up."""

    keys: Literal["text", "integer", "icd9"]
    known: Mapping[Any, Contribution]
    missing: Contribution
    unknown: Contribution

    def find(self, value: Value) -> Contribution | None:
        """The contribution of a value; None where the value is unknown."""
        if value is None:
            return self.missing
        found = self.known.get(value)
        if found is None and self.keys == "icd9":
            found = self.known.get(normalise(str(value)))
        return found


@dataclass(frozen=True)
class Codes:
    """A column of codes as a dictionary: row i holds `values[index[i]]`."""

    index: NDArray[np.integer[Any]]
    values: Sequence[Value]


@dataclass(frozen=True)
class Encoder:
    """The fitted preprocessing of one model, as tables."""

    outputs: tuple[str, ...]
    slots: int
    counts: Mapping[str, CountTable]
    codes: Mapping[str, CodeTable]
    combinations: tuple[tuple[Slot, tuple[Slot, ...]], ...]
    ratios: tuple[tuple[Slot, Slot, Slot], ...]  # slot, numerator, denominator (at least 1)
    center: tuple[float, ...] = field(default=())  # of the outputs; empty: not standardised
    scale: tuple[float, ...] = field(default=())

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields that are read, counts first."""
        return (*self.counts, *self.codes)

    def encode(self, encounter: Mapping[str, Any]) -> NDArray[np.float32]:
        """The model's input for one encounter, shape (1, len(outputs)).

        A field that is absent counts as missing, a value that no table knows as unknown.
        """
        return self.encode_noting(encounter)[0]

    def encode_noting(self, encounter: Mapping[str, Any]) -> tuple[NDArray[np.float32], list[str]]:
        """As `encode`, with the names of the code fields whose value no table knows."""
        try:
            found = list(map(getitem, self._known, map(encounter.get, self.codes)))
            unknown: list[str] = []
        except KeyError:  # a value is unknown, or in another spelling
            found, unknown = self._search(encounter)
        x = [0.0] * self.slots
        for name, maximum, slots in self._count_plan:
            value = encounter.get(name)
            if value:
                clipped = maximum if value > maximum else value
                if clipped > 0:
                    for slot in slots:
                        x[slot] += clipped
        for sums, maxima in filter(None, found):
            for slot, amount in sums:
                x[slot] += amount
            for slot, amount in maxima:
                x[slot] = max(x[slot], amount)
        for slot, parts in self._combination_plan:
            x[slot] += sum(parts(x))
        for slot, numerator, denominator in self.ratios:
            x[slot] = x[numerator] / max(x[denominator], 1.0)
        del x[len(self.outputs) :]
        if self.scale:
            return self._finish(np.array([x])), unknown
        # Packing rounds to float32 as numpy does, in a third of the time that an array of Python floats takes.
        return np.frombuffer(self._packer.pack(*x), dtype=np.float32).reshape(1, -1), unknown

    def _search(self, encounter: Mapping[str, Any]) -> tuple[list[_Found], list[str]]:
        found, unknown = [], []
        for name, table in self.codes.items():
            contribution = table.find(encounter.get(name))
            if contribution is None:
                unknown.append(name)
                contribution = table.unknown
            found.append(_found(contribution))
        return found, unknown

    def encode_table(self, columns: Mapping[str, "NDArray[Any] | Codes"]) -> NDArray[np.float32]:
        """The model's input for a table, shape (rows, len(outputs)), row order kept.

        `columns` holds an integer array for each count and `Codes` for each code field.
        """
        rows = len(next(column.index if isinstance(column, Codes) else column for column in columns.values()))
        x = np.zeros((self.slots, rows))
        for name, count in self.counts.items():
            clipped = np.clip(np.asarray(columns[name]), 0, count.maximum)
            for slot in count.slots:
                x[slot] += clipped
        for name, table in self.codes.items():
            column = columns[name]
            if not isinstance(column, Codes):
                raise TypeError(f"column {name} must come as Codes")
            found = [table.find(value) or table.unknown for value in column.values]
            for slot, amounts in _by_slot([contribution.sums for contribution in found]).items():
                x[slot] += amounts[column.index]
            for slot, amounts in _by_slot([contribution.maxima for contribution in found]).items():
                np.maximum(x[slot], amounts[column.index], out=x[slot])
        for slot, parts in self.combinations:
            for part in parts:
                x[slot] += x[part]
        for slot, numerator, denominator in self.ratios:
            x[slot] = x[numerator] / np.maximum(x[denominator], 1.0)
        return self._finish(x[: len(self.outputs)].T)

    def unknown_fields(self, encounter: Mapping[str, Any]) -> list[str]:
        """Names of the code fields whose value no table knows; missing values are not unknown."""
        return [name for name, table in self.codes.items() if table.find(encounter.get(name)) is None]

    def missing_fields(self, encounter: Mapping[str, Any]) -> list[str]:
        """Names of the fields that the encounter leaves out or gives as null."""
        return [name for name in self.fields if encounter.get(name) is None]

    def to_json(self) -> bytes:
        document = asdict(self)
        for table in document["codes"].values():
            table["known"] = {str(value): _plain(found) for value, found in table["known"].items()}
            table["missing"], table["unknown"] = _plain(table["missing"]), _plain(table["unknown"])
        return json.dumps(document, sort_keys=True, separators=(",", ":")).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> "Encoder":
        document = json.loads(data)
        return cls(
            outputs=tuple(document["outputs"]),
            slots=document["slots"],
            counts={name: CountTable(c["maximum"], tuple(c["slots"])) for name, c in document["counts"].items()},
            codes={name: _code_table(table) for name, table in document["codes"].items()},
            combinations=tuple((slot, tuple(parts)) for slot, parts in document["combinations"]),
            ratios=tuple((a, b, c) for a, b, c in document["ratios"]),
            center=tuple(document["center"]),
            scale=tuple(document["scale"]),
        )

    def _finish(self, x: NDArray[np.float64]) -> NDArray[np.float32]:
        if self.scale:
            x = (x - self._center_array) / self._scale_array
        return np.ascontiguousarray(x, dtype=np.float32)

    @cached_property
    def _center_array(self) -> NDArray[np.float64]:
        return np.array(self.center)

    @cached_property
    def _scale_array(self) -> NDArray[np.float64]:
        return np.array(self.scale)

    @cached_property
    def _count_plan(self) -> list[tuple[str, int, tuple[Slot, ...]]]:
        return [(name, count.maximum, count.slots) for name, count in self.counts.items()]

    @cached_property
    def _known(self) -> list[dict[Any, _Found]]:
        return [
            {value: _found(contribution) for value, contribution in {**table.known, None: table.missing}.items()}
            for table in self.codes.values()
        ]

    @cached_property
    def _combination_plan(self) -> list[tuple[Slot, Callable[[Any], tuple[float, ...]]]]:
        return [(slot, _getter(parts)) for slot, parts in self.combinations]

    @cached_property
    def _packer(self) -> struct.Struct:
        return struct.Struct(f"{len(self.outputs)}f")


def _found(contribution: Contribution) -> _Found:
    """Nothing at all where there is nothing to add: most drugs are not prescribed."""
    return (contribution.sums, contribution.maxima) if contribution.sums or contribution.maxima else ()


def _getter(keys: Sequence[Any]) -> Callable[[Any], tuple[Any, ...]]:
    """The items under these keys, always as a tuple."""
    return itemgetter(*keys) if len(keys) > 1 else lambda items: tuple(items[key] for key in keys)


def _by_slot(contributions: list[tuple[tuple[Slot, float], ...]]) -> dict[Slot, NDArray[np.float64]]:
    amounts: dict[Slot, NDArray[np.float64]] = {}
    for position, parts in enumerate(contributions):
        for slot, amount in parts:
            amounts.setdefault(slot, np.zeros(len(contributions)))[position] += amount
    return amounts


def _plain(contribution: dict[str, Any]) -> list[Any]:
    return [contribution["sums"], contribution["maxima"]]


def _contribution(plain: list[Any]) -> Contribution:
    sums, maxima = plain
    return Contribution(tuple((s, a) for s, a in sums), tuple((s, a) for s, a in maxima))


def _code_table(table: dict[str, Any]) -> CodeTable:
    key = int if table["keys"] == "integer" else str
    known = {key(value): _contribution(found) for value, found in table["known"].items()}
    return CodeTable(table["keys"], known, _contribution(table["missing"]), _contribution(table["unknown"]))
