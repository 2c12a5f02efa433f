"""One row of the schema, and the rule for its field's values, written once.

Validation, tables, files, the API's decoder and its documentation render `Field.rule`, `Field.bounds`, `Field.codes`
and `Field.may_be_missing` in their own terms. A row that lacks a fact they need fails at import, with a sentence. Plain
Python, so that the service can import it.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

Kind = Literal["identifier", "category", "code", "count", "decimal", "diagnosis", "outcome"]
Value = str | int | float

LONGEST_TEXT = 64  # most characters of a text; the longest value of the dataset has 36
MOST_STEPS = 1_000  # most steps in a decimal's range: drift counts encounters by step

_DTYPES: dict[Kind, str] = {"identifier": "Int64", "code": "Int16", "count": "Int32", "decimal": "Float64"}
_LARGEST = {"Int64": 2**63 - 1, "Int32": 2**31 - 1, "Int16": 2**15 - 1, "Float64": math.inf}


@dataclass(frozen=True)
class Factor:
    """Fields that mean one thing to a clinician. `can_be_influenced`: whether by care in the stay or at discharge."""

    name: str
    can_be_influenced: bool = False
    fields: tuple[str, ...] = ()  # `factors_of` fills it in


@dataclass(frozen=True)
class Field:
    """One column of the dataset. Raises ValueError for a row that is incomplete or contradicts itself.

    `name` is written with underscores, `raw_name` as in the dataset. The kind `code` is a small whole number that
    stands for a category. `codes` are the known values; another value is refused where `closed` is true, and scored as
    unknown elsewhere. `minimum` and `maximum` bound a count or decimal, in `unit`: values beyond them are refused as
    impossible. `factor` names the factor of the explanation that the field belongs to.
    """

    name: str
    kind: Kind
    description: str
    codes: tuple[str | int, ...] = ()
    closed: bool = False
    nullable: bool = False  # may be missing: null, in files and requests also `?` and an empty text
    required: bool = True  # whether a request to the API must have it
    minimum: float = 0
    maximum: float = 0
    published: float | None = None  # largest value in the published data; models read larger values as this one
    step: float = 0  # smallest difference of a decimal that counts for drift
    unit: str = ""
    example: Value | None = None
    raw: str = ""
    factor: str = ""
    feature: bool = True  # whether models read it
    administrative: bool = False  # about billing and organisation, not about illness: drifts with any contract

    def __post_init__(self) -> None:
        faults = list(_faults(self))
        if faults:
            raise ValueError(f"field {self.name!r} of data/schema.py {'; '.join(faults)}")

    @property
    def meaning(self) -> tuple[object, ...]:
        """The facts that decide which values are allowed: all but prose."""
        return (
            self.name, self.raw_name, self.kind, self.codes, self.closed, self.nullable, self.required, self.minimum,
            self.maximum,
        )  # fmt: skip

    @property
    def raw_name(self) -> str:
        return self.raw or self.name

    @property
    def is_whole_number(self) -> bool:
        return self.kind in ("identifier", "code", "count")

    @property
    def is_number(self) -> bool:
        return self.is_whole_number or self.kind == "decimal"

    @property
    def is_quantity(self) -> bool:
        """Whether the order and the distances of its values have a meaning."""
        return self.kind in ("count", "decimal")

    @property
    def is_clinical(self) -> bool:
        return self.kind not in ("identifier", "outcome")

    @property
    def may_be_missing(self) -> bool:
        return self.nullable or not self.required

    @property
    def type(self) -> type[str] | type[int] | type[float]:
        if self.is_number:
            return int if self.is_whole_number else float
        return str

    @property
    def dtype(self) -> str:
        """Name of its column's polars type."""
        return _DTYPES.get(self.kind, "String")

    @property
    def bounds(self) -> tuple[float, float]:
        """Smallest and largest allowed value of a number; without a stated maximum, the largest of its dtype."""
        return self.minimum, self.maximum or _LARGEST[self.dtype]

    @property
    def largest(self) -> float:
        """Largest value of a quantity that models read; they read larger values as this one."""
        return self.maximum if self.published is None else self.published

    @property
    def rule(self) -> str:
        """The rule for values as a phrase: `a whole number from 1 to 365`."""
        if self.is_number:
            low, high = self.bounds
            return f"a {'whole ' if self.is_whole_number else ''}number from {low} to {high}"
        if self.closed:
            return f"one of {', '.join(map(str, self.codes))}"
        return f"a text of at most {LONGEST_TEXT} characters"

    def fits(self, value: object) -> bool:
        """Whether a value that is not missing follows the rule."""
        if isinstance(value, bool) or not isinstance(value, int | float if self.type is float else self.type):
            return False
        if isinstance(value, str):
            return value in self.codes if self.closed else 0 < len(value) <= LONGEST_TEXT
        low, high = self.bounds
        return low <= value <= high


def _faults(field: Field) -> Iterator[str]:
    """Omissions and errors of a field's row, each as the rest of a sentence."""
    if field.kind not in get_args(Kind):
        yield f"is of no kind that there is, but {field.kind!r}; choose from {', '.join(get_args(Kind))}"
        return
    if not field.name.isidentifier():
        yield "has a name that is not written with letters, digits and underscores; `raw` takes the file's spelling"
    if not field.description:
        yield "has no description: the API, its documentation and docs/fields.md say what a field means"
    if field.is_quantity:
        yield from _faults_of_quantity(field)
    if field.kind == "code" and not field.codes:
        yield "is a code and lists no codes"
    if field.closed and not field.codes:
        yield "is closed and lists no codes: nothing would be allowed"
    if not field.is_clinical:
        return
    if not field.factor:
        yield "has no factor: contributions to a risk would not add up without one (FACTORS in data/schema.py)"
    if not field.fits(field.example):
        yield f"has an example that is not {field.rule}; the API's documentation shows it, and its warm-up scores it"


def _faults_of_quantity(field: Field) -> Iterator[str]:
    if not field.minimum < field.maximum < math.inf:
        yield f"is a {field.kind} without a range: `maximum` has to be above `minimum`, beyond it nobody's stay lies"
    elif not field.minimum <= field.largest <= field.maximum:
        yield "has a largest `published` value outside its range"
    if not field.unit:
        yield f"is a {field.kind} without a unit"
    if field.kind == "decimal" and not 0 < field.maximum - field.minimum <= field.step * MOST_STEPS:
        yield f"is a decimal whose `step` is not stated, or divides its range into more than {MOST_STEPS} parts"
    if field.kind != "decimal" and field.step:
        yield "has a `step`, which only decimals have"


def factors_of(fields: Sequence[Field], factors: Sequence[Factor]) -> tuple[Factor, ...]:
    """The factors with their fields. Raises ValueError where fields share a name, or a factor is unknown or empty."""
    spellings = Counter(name for field in fields for name in {field.name, field.raw_name})
    twice = [name for name, times in spellings.items() if times > 1]
    if twice:
        raise ValueError(f"data/schema.py has two fields that are called {', '.join(twice)}")
    known = [factor.name for factor in factors]
    for field in fields:
        if field.is_clinical and field.factor not in known:
            raise ValueError(
                f"field {field.name!r} of data/schema.py belongs to the factor {field.factor!r}, which is none of "
                f"FACTORS: {', '.join(known)}"
            )
    found = tuple(
        replace(factor, fields=tuple(field.name for field in fields if field.factor == factor.name))
        for factor in factors
    )
    empty = [factor.name for factor in found if not factor.fields]
    if empty or len(set(known)) < len(known):
        raise ValueError(
            f"FACTORS of data/schema.py has a factor twice or without a field: {', '.join(empty or known)}"
        )
    return found
