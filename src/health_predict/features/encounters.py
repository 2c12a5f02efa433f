"""Features of one encounter that need no fitting: the same row gives the same features alone or in a table.

Every feature is one line of NUMBERS or CATEGORIES, from which polars computes tables here, and look-ups compute single
rows in the service (`encoder.py`). No feature reads an identifier, another row, or the outcome. Every quantity of the
schema has a feature, and so has every category or code that no line here derives more from; `feature=False` in its row
leaves a field out.

Missing values and unknown codes: a category is "missing" or "unknown"; a missing or unknown value adds nothing to a sum
or a flag; a missing quantity counts as its minimum, and a flag marks it where the field may be missing. A quantity
above the largest in the published data counts as that.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import polars as pl
from numpy.typing import NDArray

from health_predict.data.field import Field
from health_predict.data.schema import AGE_BANDS, CLINICAL, DIAGNOSES, DRUGS, FIELD
from health_predict.features.diagnoses import (
    COMORBIDITIES,
    DIAGNOSIS,
    charlson_weights,
    is_ambiguous,
    is_icd10,
    normalise,
)
from health_predict.features.encoder import Codes, Encoder

Value = str | int
MISSING, UNKNOWN = "missing", "unknown"


@dataclass(frozen=True)
class Recorded:
    """A quantity as recorded, clipped to `minimum` and `maximum` (the largest in the published data)."""

    field: str
    maximum: float
    minimum: float = 0

    @property
    def name(self) -> str:
        return self.field


@dataclass(frozen=True)
class Absent:
    """1 where the field is missing, else 0."""

    name: str
    field: str


@dataclass(frozen=True)
class Total:
    """Sum over the fields of the table's amount for each field's value; 0 for values not in the table."""

    name: str
    fields: tuple[str, ...]
    table: Mapping[Value, float]


@dataclass(frozen=True)
class Highest:
    """Largest over the fields of the table's amount for each field's value; 0 for values not in the table."""

    name: str
    fields: tuple[str, ...]
    table: Mapping[Value, float]


@dataclass(frozen=True)
class Combination:
    """Sum of features listed before it."""

    name: str
    features: tuple[str, ...]


@dataclass(frozen=True)
class Ratio:
    """One feature divided by another, which counts as at least 1."""

    name: str
    numerator: str
    denominator: str


@dataclass(frozen=True)
class Category:
    """The field's value, or the table's label for it."""

    name: str
    field: str
    table: Mapping[Value, str] | None = None


@dataclass(frozen=True)
class Joint:
    """The pair of the labels that two categories have; "missing" and "unknown" are labels like others.

    The outcome rate of some pairs does not follow from the rates of their labels: of stays that end in another acute
    hospital, 40% of those with a diagnosis in no group of Strack's are readmitted (docs/data.md).
    """

    left: str  # names of categories
    right: str

    @property
    def name(self) -> str:
        return f"{self.left}_and_{self.right}"


Number = Recorded | Absent | Total | Highest | Combination | Ratio


_DRUG_FIELDS = tuple(raw.replace("-", "_") for raw in DRUGS)

# Raw disposition codes of IDs_mapping.csv, grouped by the care that follows.
DISPOSITION_GROUPS: Mapping[Value, str] = {
    **dict.fromkeys((1,), "home"),
    **dict.fromkeys((6, 8), "home_with_care"),
    **dict.fromkeys((3, 4, 15, 22, 23, 24), "nursing_or_rehabilitation"),
    **dict.fromkeys((2, 5, 9, 10, 27, 28, 29, 30), "other_hospital"),
    **dict.fromkeys((12, 16, 17), "outpatient_or_return"),
    **dict.fromkeys((7,), "left_against_advice"),
    **dict.fromkeys((11, 13, 14, 19, 20, 21), "expired_or_hospice"),
    **dict.fromkeys((18, 25, 26), "not_recorded"),
}

_COMMON_DRUGS = (  # prescribed in at least 0.5% of encounters of the published data
    "metformin",
    "repaglinide",
    "nateglinide",
    "glimepiride",
    "glipizide",
    "glyburide",
    "pioglitazone",
    "rosiglitazone",
    "glyburide_metformin",
    "insulin",
)


def _diagnoses_where(attribute: str) -> dict[Value, float]:
    return {code: 1.0 for code, diagnosis in DIAGNOSIS.items() if getattr(diagnosis, attribute)}


def _diagnoses_in(condition: str) -> dict[Value, float]:
    return {code: 1.0 for code, diagnosis in DIAGNOSIS.items() if condition in diagnosis.comorbidities}


_COMORBIDITY_FLAGS = tuple(Highest(f"has_{name}", DIAGNOSES, _diagnoses_in(name)) for name in COMORBIDITIES)
_CHARLSON_PARTS = tuple(
    Highest(f"charlson_{family}", DIAGNOSES, {code: float(weight) for code, weight in weights.items()})
    for family, weights in charlson_weights().items()
)

_QUANTITIES = tuple(field for field in CLINICAL if field.is_quantity and field.feature)


def _recorded(field: Field) -> Recorded:
    return Recorded(field.name, field.largest, field.minimum if field.kind == "decimal" else 0)


# A combination or a ratio comes after the features that it reads; otherwise the order does not matter.
NUMBERS: tuple[Number, ...] = (
    *(_recorded(field) for field in _QUANTITIES),
    *(Absent(f"{field.name}_missing", field.name) for field in _QUANTITIES if field.may_be_missing),
    Total("age_midpoint", ("age",), {band: 5.0 + 10.0 * decade for decade, band in enumerate(AGE_BANDS)}),
    Ratio("labs_per_day", "num_lab_procedures", "time_in_hospital"),
    Ratio("medications_per_day", "num_medications", "time_in_hospital"),
    Combination("utilisation", ("number_outpatient", "number_emergency", "number_inpatient")),
    Total("drugs_up", _DRUG_FIELDS, {"Up": 1.0}),
    Total("drugs_down", _DRUG_FIELDS, {"Down": 1.0}),
    Total("drugs_steady", _DRUG_FIELDS, {"Steady": 1.0}),
    Combination("drugs_changed", ("drugs_up", "drugs_down")),
    Highest("type_1_diabetes", DIAGNOSES, _diagnoses_where("type_1")),
    Highest("diabetes_primary", ("diag_1",), _diagnoses_where("diabetes")),
    Highest("hba1c_tested", ("A1Cresult",), {"Norm": 1.0, ">7": 1.0, ">8": 1.0}),
    *_COMORBIDITY_FLAGS,
    Combination("comorbidities", tuple(flag.name for flag in _COMORBIDITY_FLAGS)),
    *_CHARLSON_PARTS,
    Combination("charlson_index", tuple(part.name for part in _CHARLSON_PARTS)),
)
HIDDEN = frozenset(part.name for part in _CHARLSON_PARTS)  # read by the Charlson index, not by a model

_CATEGORIES = (
    *(Category(name, name) for name in ("race", "gender", "A1Cresult", "max_glu_serum", "change", "diabetesMed")),
    *(Category(name, name) for name in _COMMON_DRUGS),
    *(Category(name, name) for name in ("admission_type_id", "admission_source_id", "discharge_disposition_id")),
    Category("disposition_group", "discharge_disposition_id", DISPOSITION_GROUPS),
    Category("payer_code", "payer_code"),
    Category("medical_specialty", "medical_specialty"),
    *(
        Category(f"{field}_{attribute}", field, {code: getattr(d, attribute) for code, d in DIAGNOSIS.items()})
        for field in DIAGNOSES
        for attribute in ("strack_group", "ccs_group", "category")
    ),
)

_OF_TOTALS = tuple(field for number in NUMBERS if isinstance(number, Total | Highest) for field in number.fields)
_READ = {*_OF_TOTALS, *(category.field for category in _CATEGORIES)}
CATEGORIES: tuple[Category, ...] = (
    *_CATEGORIES,
    *(
        Category(field.name, field.name)
        for field in CLINICAL
        if field.kind in ("category", "code") and field.feature and field.name not in _READ
    ),
)

# Found among 1,176 pairs of fields by what a model without pairs leaves unexplained; more pairs bring nothing.
JOINTS: tuple[Joint, ...] = tuple(
    Joint("discharge_disposition_id", right)
    for right in (
        "diag_1_strack_group",
        "medical_specialty",
        "admission_type_id",
        "admission_source_id",
        "diag_1_ccs_group",
        "payer_code",
    )
)


@dataclass(frozen=True)
class Features:
    """The features of a model."""

    numbers: tuple[Number, ...]
    categories: tuple[Category, ...]
    joints: tuple[Joint, ...]

    @cached_property
    def number_names(self) -> tuple[str, ...]:
        """Names of the numbers that a model reads."""
        return tuple(number.name for number in self.numbers if number.name not in HIDDEN)

    @cached_property
    def category_names(self) -> tuple[str, ...]:
        return tuple(category.name for category in self.categories)

    @cached_property
    def joint_names(self) -> tuple[str, ...]:
        return tuple(joint.name for joint in self.joints)

    @cached_property
    def coded_fields(self) -> tuple[str, ...]:
        """Fields whose values are looked up in tables."""
        totals = (field for number in self.numbers if isinstance(number, Total | Highest) for field in number.fields)
        return tuple(dict.fromkeys((*totals, *(category.field for category in self.categories))))


ALL = Features(NUMBERS, CATEGORIES, JOINTS)


def without(excluded: Collection[str]) -> Features:
    """The features that a model has when it may not read some fields.

    A sum or a flag over several fields is of those that are left.
    """
    numbers: dict[str, Number] = {}
    for number in NUMBERS:
        left = _without(number, excluded, numbers)
        if left is not None:
            numbers[number.name] = left
    categories = tuple(category for category in CATEGORIES if category.field not in excluded)
    names = {category.name for category in categories}
    return Features(tuple(numbers.values()), categories, tuple(j for j in JOINTS if {j.left, j.right} <= names))


def _without(number: Number, excluded: Collection[str], left: Mapping[str, Number]) -> Number | None:
    match number:
        case Recorded() | Absent():
            return None if number.field in excluded else number
        case Total() | Highest():
            fields = tuple(field for field in number.fields if field not in excluded)
            return replace(number, fields=fields) if fields else None
        case Combination():
            features = tuple(name for name in number.features if name in left)
            return replace(number, features=features) if features else None
        case Ratio():
            return number if {number.numerator, number.denominator} <= left.keys() else None


_CONTRADICTED = [field.name for field in CLINICAL if field.name in ALL.coded_fields and not field.feature]
if _CONTRADICTED:
    raise ValueError(
        f"a feature reads {', '.join(_CONTRADICTED)}, which data/schema.py says no model reads (`feature`)"
    )


def engineer(encounters: pl.DataFrame, features: Features = ALL) -> pl.DataFrame:
    """Features of a table of typed encounters: one row each, in the same order.

    Returns `number_names` as Float64 without nulls, then `category_names` as String without nulls ("missing" and
    "unknown" are categories); the preprocessor joins these to pairs. Diagnosis codes may come in any spelling that
    `diagnoses.normalise` reads.
    """
    encounters = settle(encounters, features.coded_fields)
    frame = encounters.lazy()
    for field in features.coded_fields:
        meanings = _meanings(encounters[field].unique().to_list(), field, features)
        frame = frame.join(meanings.lazy(), on=field, how="left", nulls_equal=True, maintain_order="left")
    for number in features.numbers:
        frame = frame.with_columns(_number(number).cast(pl.Float64).alias(_column(number.name)))
    return frame.select(
        *(pl.col(_column(name)).alias(name) for name in features.number_names),
        *(pl.col(_column(name)).alias(name) for name in features.category_names),
    ).collect()


def _meanings(values: list[Value | None], field: str, features: Features) -> pl.DataFrame:
    """Contribution of each value of one field to the features that read the field: one row per value."""
    diagnosis = FIELD[field].kind == "diagnosis"
    canonical = [normalise(str(value)) if diagnosis and value is not None else value for value in values]
    found: dict[str, pl.Series] = {
        field: pl.Series(values, dtype=pl.Int16 if FIELD[field].is_whole_number else pl.String)
    }
    for number in features.numbers:
        if isinstance(number, Total | Highest) and field in number.fields:
            amounts = [0.0 if value is None else number.table.get(value, 0.0) for value in canonical]
            found[_column(number.name, field)] = pl.Series(amounts, dtype=pl.Float32)
    for category in features.categories:
        if category.field == field:
            labels = [label(category, value) for value in canonical]
            found[_column(category.name)] = pl.Series(labels, dtype=pl.String)
    return pl.DataFrame(found)


def label(category: Category, value: Value | None) -> str:
    """Label of a field's value, "missing" or "unknown" included; diagnosis codes must be in canonical spelling."""
    if value is None:
        return MISSING
    if category.table is not None:
        return category.table.get(value, UNKNOWN)
    codes = FIELD[category.field].codes
    known = value in codes if codes else value not in (MISSING, UNKNOWN)  # texts that would pass for the labels
    return str(value) if known else UNKNOWN


def _column(name: str, field: str = "") -> str:
    return f"{name} of {field}" if field else f"feature {name}"  # distinct from the fields' own columns


def _number(number: Number) -> pl.Expr:
    match number:
        case Recorded(field, maximum, minimum):
            return pl.col(field).fill_null(minimum).clip(minimum, maximum)
        case Absent(_, field):
            return pl.col(field).is_null()
        case Total(name, fields, _):
            return pl.sum_horizontal(_column(name, field) for field in fields)
        case Highest(name, fields, _):
            return pl.max_horizontal(_column(name, field) for field in fields)
        case Combination(_, features):
            return pl.sum_horizontal(_column(name) for name in features)
        case Ratio(_, numerator, denominator):
            return pl.col(_column(numerator)) / pl.col(_column(denominator)).clip(1)


def columns(encounters: pl.DataFrame, encoder: Encoder) -> Mapping[str, NDArray[Any] | Codes]:
    """The fields that an encoder reads, as `Encoder.encode_table` takes them."""
    encounters = settle(encounters, encoder.fields)
    counts = {name: encounters[name].to_numpy() for name in encoder.counts}  # null: NaN
    return {**counts, **{name: _codes(encounters[name]) for name in encoder.codes}}


def settle(encounters: pl.DataFrame, read: Collection[str]) -> pl.DataFrame:
    """The table with `diagnoses.settle` applied to each encounter, for a reader of the fields `read`; order kept."""
    values = {name: _values(encounters[name]) for name in DIAGNOSES if name in read}
    foreign = {name: list(filter(is_icd10, found)) for name, found in values.items()}
    if not any(foreign.values()):
        return encounters
    texts = {name: encounters[name].cast(pl.String) for name in values}
    beside = pl.DataFrame([texts[name].is_in(found) for name, found in foreign.items()])
    rows = beside.select(pl.any_horizontal(pl.all().fill_null(False))).to_series()
    return encounters.with_columns(
        pl.when(rows & texts[name].is_in(list(filter(is_ambiguous, found))))
        .then(pl.lit(UNKNOWN))
        .otherwise(texts[name])
        .alias(name)
        for name, found in values.items()
    )


def _values(column: pl.Series) -> list[str]:
    return (column.dtype.categories if isinstance(column.dtype, pl.Enum) else column.unique().drop_nulls()).to_list()


def _codes(column: pl.Series) -> Codes:
    if column.dtype.is_integer():
        low, high = cast("int", column.min() or 0), cast("int", column.max() or 0)
        index, values = column - low, list(range(low, high + 1))
    else:
        dtype = column.dtype if isinstance(column.dtype, pl.Enum) else pl.Enum(column.unique().drop_nulls())
        index, values = column.cast(dtype).to_physical(), dtype.categories.to_list()
    return Codes(index.cast(pl.Int32).fill_null(len(values)).to_numpy(), [*values, None])
