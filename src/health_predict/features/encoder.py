"""Turns encounters into the model's input vectors by look-ups alone.

An `Encoder` is the fitted preprocessing written out as plain tables: for every field, the amounts that each of its
values adds to slots of the vector. It is stored as `encoder.json`, so that the service needs neither the training
libraries nor a pickle. Tables are encoded here, single encounters by `row_encoder.py`, to the same float32 numbers.

A slot takes contributions by addition, or by maximum where several fields may state the same fact (a comorbidity in
two diagnoses counts once). Then come joints (amounts of pairs of labels, which two fields give), combinations (sums of
slots), ratios, and, for linear models, standardisation.
Slots after the outputs are intermediate results that no model reads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from health_predict.features.diagnoses import normalise, settle

Value = str | int | None
Slot = int


class Contribution(NamedTuple):
    """Contribution of one value of one field: amounts added to slots, lower bounds of slots, and labels for joints.

    A label comes with its position among the labels of an encounter.
    """

    sums: tuple[tuple[Slot, float], ...] = ()
    maxima: tuple[tuple[Slot, float], ...] = ()
    labels: tuple[tuple[int, str], ...] = ()


class CountTable(msgspec.Struct, frozen=True, omit_defaults=True):
    """Table of a number: the value, clipped to minimum..maximum, is added to its slots; a missing one counts as the
    minimum, and adds 1 to the `absent` slots."""

    maximum: float | int
    slots: tuple[Slot, ...]
    minimum: float | int = 0
    absent: tuple[Slot, ...] = ()

    def find(self, value: float | None) -> Contribution:
        """The contribution of a number; None: missing."""
        amount = float(self.minimum if value is None else min(max(value, self.minimum), self.maximum))
        missing = tuple((slot, 1.0) for slot in self.absent if value is None)
        return Contribution((*((slot, amount) for slot in self.slots), *missing))

    @property
    def contributions(self) -> list[Contribution]:
        """Two contributions that together touch every slot that any number touches."""
        return [self.find(self.maximum), self.find(None)]


@dataclass(frozen=True)
class CodeTable:
    """Table of a code: the contribution of each known value; `keys` is the form in which values are looked up."""

    keys: Literal["text", "integer", "icd9"]
    known: Mapping[Any, Contribution]
    missing: Contribution
    unknown: Contribution

    @property
    def contributions(self) -> list[Contribution]:
        """Contributions of all values, missing and unknown included."""
        return [*self.known.values(), self.missing, self.unknown]

    def find(self, value: Value) -> Contribution | None:
        """The contribution of a value; None where the value is unknown."""
        if value is None:
            return self.missing
        found = self.known.get(value)
        if found is None and self.keys == "icd9":
            found = self.known.get(normalise(str(value)))
        return found


class JointTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Table of a pair of labels: each pair adds an amount to a slot, and so does a pair that is not in the table."""

    left: int  # positions among the labels of an encounter
    right: int
    pairs: Mapping[str, Mapping[str, tuple[Slot, float]]]  # left label -> right label -> slot and amount
    otherwise: tuple[Slot, float]

    def add(self, x: NDArray[np.float64], left: "Codes", right: "Codes") -> None:
        """Add to `x`, shape (slots, rows), what the pair of labels of each row adds."""
        found = [
            [self.pairs.get(str(one), {}).get(str(other), self.otherwise) for other in right.values]
            for one in left.values
        ]
        slots, amounts = np.array(found).transpose(2, 0, 1)[:, left.index, right.index]
        x[slots.astype(np.intp), np.arange(x.shape[1])] += amounts


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
    joints: tuple[JointTable, ...] = ()
    center: tuple[float, ...] = field(default=())  # one value per output; empty: not standardised
    scale: tuple[float, ...] = field(default=())

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields that the encoder reads, counts first."""
        return (*self.counts, *self.codes)

    def encode_table(self, columns: Mapping[str, "NDArray[Any] | Codes"]) -> NDArray[np.float32]:
        """The model's input for a table, shape (rows, len(outputs)), row order kept.

        `columns` holds an array of shape (rows,) for each number, NaN where missing, and `Codes` for each code field.
        Raises TypeError for a code field in another form.
        """
        rows = len(next(column.index if isinstance(column, Codes) else column for column in columns.values()))
        x = np.zeros((self.slots, rows))
        labels: dict[int, Codes] = {}
        for name, count in self.counts.items():
            _count(x, count, np.asarray(columns[name]))
        for name, table in self.codes.items():
            column = columns[name]
            if not isinstance(column, Codes):
                raise TypeError(f"column {name} must come as Codes")
            found = [table.find(value) or table.unknown for value in column.values]
            for slot, amounts in _by_slot([contribution.sums for contribution in found]).items():
                x[slot] += amounts[column.index]
            for slot, amounts in _by_slot([contribution.maxima for contribution in found]).items():
                np.maximum(x[slot], amounts[column.index], out=x[slot])
            for position, texts in _by_position([contribution.labels for contribution in found]).items():
                distinct, index = np.unique(texts, return_inverse=True)
                labels[position] = Codes(index[column.index], distinct.tolist())
        for joint in self.joints:
            joint.add(x, labels[joint.left], labels[joint.right])
        for slot, parts in self.combinations:
            for part in parts:
                x[slot] += x[part]
        for slot, numerator, denominator in self.ratios:
            x[slot] = x[numerator] / np.maximum(x[denominator], 1.0)
        return self.finish(x[: len(self.outputs)].T)

    def unknown_fields(self, encounter: Mapping[str, Any]) -> list[str]:
        """Names of the code fields with an unknown value; missing values are not unknown."""
        settled = settle(encounter, self.fields)
        return [name for name, table in self.codes.items() if table.find(settled.get(name)) is None]

    def missing_fields(self, encounter: Mapping[str, Any]) -> list[str]:
        """Names of the fields that the encounter leaves out or gives as null."""
        return [name for name in self.fields if encounter.get(name) is None]

    def to_json(self) -> bytes:
        return msgspec.json.encode(self._with_keys(str), order="sorted") + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> "Encoder":
        """The encoder in `data`. Raises msgspec.ValidationError for JSON that `to_json` cannot have written."""
        return msgspec.json.decode(data, type=cls)._with_keys(int)

    def finish(self, x: NDArray[np.float64]) -> NDArray[np.float32]:
        """Encoded encounters as the model reads them: standardised if the encoder says so, float32, same shape."""
        if self.scale:
            x = (x - self._center_array) / self._scale_array
        return np.ascontiguousarray(x, dtype=np.float32)

    def _with_keys(self, kind: type[int] | type[str]) -> "Encoder":
        """The encoder with whole-number keys converted to `kind`: JSON has texts as keys."""
        codes = {
            name: replace(table, known={kind(value): found for value, found in table.known.items()})
            if table.keys == "integer"
            else table
            for name, table in self.codes.items()
        }
        return replace(self, codes=codes)

    @cached_property
    def _center_array(self) -> NDArray[np.float64]:
        return np.array(self.center)

    @cached_property
    def _scale_array(self) -> NDArray[np.float64]:
        return np.array(self.scale)


def _count(x: NDArray[np.float64], count: CountTable, given: NDArray[Any]) -> None:
    """Add a column of numbers to its slots of `x`, shape (slots, rows)."""
    held = np.clip(given, count.minimum, count.maximum)
    if given.dtype.kind == "f":  # arrays of whole numbers have no missing values
        missing = np.isnan(given)
        held = np.where(missing, count.minimum, held)
        for slot in count.absent:
            x[slot] += missing
    for slot in count.slots:
        x[slot] += held


def _by_position(labels: list[tuple[tuple[int, str], ...]]) -> dict[int, list[str]]:
    """Labels of a field's values by their position; every value has a label at each of the field's positions."""
    return {position: [dict(found)[position] for found in labels] for position in dict(labels[0])}


def _by_slot(contributions: list[tuple[tuple[Slot, float], ...]]) -> dict[Slot, NDArray[np.float64]]:
    amounts: dict[Slot, NDArray[np.float64]] = {}
    for position, parts in enumerate(contributions):
        for slot, amount in parts:
            amounts.setdefault(slot, np.zeros(len(contributions)))[position] += amount
    return amounts
