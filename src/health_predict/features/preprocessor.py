"""Fitted preprocessing: turns engineered features into the matrix that a model is trained on.

Two encodings. `target`, for trees: numbers as they are, each category and joint as its cross-fitted, shrunken outcome
rate (scikit-learn's TargetEncoder; Micci-Barreca 2001). `one_hot`, for linear models: numbers standardised, categories
and joints as indicator columns, rare ones of each in one column.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import OneHotEncoder, StandardScaler, TargetEncoder

from health_predict.data.schema import DIAGNOSES, FIELD
from health_predict.features.diagnoses import CODES
from health_predict.features.encoder import CodeTable, Contribution, CountTable, Encoder, JointTable
from health_predict.features.encounters import (
    HIDDEN,
    MISSING,
    UNKNOWN,
    Absent,
    Combination,
    Features,
    Highest,
    Joint,
    Ratio,
    Recorded,
    Total,
    engineer,
    label,
    without,
)
from health_predict.params import Encoding, PreprocessorParams

Matrix: TypeAlias = Any  # NDArray[np.float32], or scipy's csr_matrix of them (it has no types)


@dataclass
class Preprocessor:
    """Preprocessing fitted on the training encounters only; the same object transforms all others.

    A category or a pair unseen in training is encoded as the overall outcome rate (`target`). With `one_hot`, such a
    category is in the column of rare categories, if there is one, else encoded as zeros.
    """

    encoding: Encoding
    params: PreprocessorParams = field(default_factory=PreprocessorParams)

    @cached_property
    def features(self) -> Features:
        """The features that are encoded: of all fields but those that `params` excludes."""
        return without(self.params.exclude or ())

    def engineer(self, encounters: pl.DataFrame) -> pl.DataFrame:
        """The table that `fit_transform` and `transform` take, for typed encounters; row order kept."""
        return engineer(encounters, self.features)

    def fit_transform(self, features: pl.DataFrame, y: NDArray[np.bool_]) -> Matrix:
        """Fit, and return the training matrix, shape (rows, len(feature_names)), float32.

        With `target`, a training row's rates come from the folds without the row, so they differ from `transform` of
        the same row. Dense for `target`, CSR for `one_hot`.
        """
        self.categories_ = {name: features[name].unique().sort().to_list() for name in self.features.category_names}
        numbers, codes = self._parts(features)
        if self.encoding == "target":
            self.encoder_ = TargetEncoder(
                target_type="binary",
                smooth=self.params.target_smoothing,
                cv=StratifiedKFold(self.params.folds, shuffle=True, random_state=self.params.seed),
            )
            rates = self.encoder_.fit_transform(codes, y.astype(int))
            self.feature_names = (*self.features.number_names, *self._encoded_names)
            return self._dense(numbers, rates)
        self.scaler_ = StandardScaler().fit(numbers)
        self.encoder_ = OneHotEncoder(
            min_frequency=self.params.min_frequency, handle_unknown="infrequent_if_exist", dtype=np.float32
        ).fit(codes)
        self.feature_names = (*self.features.number_names, *self._one_hot_names())
        return self._sparse(numbers, codes)

    def transform(self, features: pl.DataFrame) -> Matrix:
        """The matrix for any encounters, shape (rows, len(feature_names)), float32, row order kept."""
        numbers, codes = self._parts(features)
        if self.encoding == "target":
            return self._dense(numbers, self.encoder_.transform(codes))
        return self._sparse(numbers, codes)

    def to_encoder(self) -> Encoder:
        """The same transformation as look-up tables (`encoder.py`), for the service."""
        return _Compiler(self).compile()

    def encoded(self, category: str) -> dict[str | None, dict[str, float]]:
        """Encoding of each label of a category: amounts by output column, zeros left out; key None: any other label."""
        position = self.features.category_names.index(category)
        labels = [*self.categories_[category], None]
        codes = np.full((len(labels), len(self._encoded_names)), -1)
        codes[:, position] = [*range(len(labels) - 1), -1]
        if self.encoding == "target":
            rates = self._round(self.encoder_.transform(codes))[:, position]
            return {label: {category: rate} for label, rate in zip(labels, rates.tolist(), strict=True)}
        indicators = self.encoder_.transform(codes).toarray()
        mine, names = self._one_hot_slices()[position], self._one_hot_names()
        return {
            label: {names[column]: 1.0 for column in range(mine.start, mine.stop) if row[column]}
            for label, row in zip(labels, indicators, strict=True)
        }

    def pairs(self, joint: Joint) -> tuple[dict[str, dict[str, tuple[str, float]]], tuple[str, float]]:
        """Output column and amount of each pair seen in training, by both labels; and those of all other pairs."""
        position = self._encoded_names.index(joint.name)
        seen = self.encoder_.categories_[position].tolist()
        codes = np.full((len(seen) + 1, len(self._encoded_names)), -1)
        codes[:-1, position] = seen
        if self.encoding == "target":
            rates = self._round(self.encoder_.transform(codes))[:, position]
            amounts = [(joint.name, rate) for rate in rates.tolist()]
        else:
            mine = self._one_hot_slices()[position]
            names, indicators = self._one_hot_names()[mine], self.encoder_.transform(codes)[:, mine].toarray()
            amounts = [(names[row.argmax()], float(row.max())) for row in indicators]
        found: dict[str, dict[str, tuple[str, float]]] = defaultdict(dict)
        for (left, right), amount in zip(self._pairs_of(joint, seen), amounts[:-1], strict=True):
            found[left][right] = amount
        return dict(found), amounts[-1]

    @property
    def _encoded_names(self) -> tuple[str, ...]:
        return (*self.features.category_names, *self.features.joint_names)

    def _pairs_of(self, joint: Joint, codes: Sequence[int]) -> list[tuple[str, str]]:
        """The labels of codes of a joint."""
        left, right = self.categories_[joint.left], self.categories_[joint.right]
        return [(left[code // len(right)], right[code % len(right)]) for code in codes]

    def _with_joints(self, codes: NDArray[np.int64]) -> NDArray[np.int64]:
        """The codes of categories, then one code for each pair of labels; -1 where training had no such label."""
        pairs = []
        for joint in self.features.joints:
            left, right = (codes[:, self.features.category_names.index(name)] for name in (joint.left, joint.right))
            pair = left * len(self.categories_[joint.right]) + right
            pairs.append(np.where((left < 0) | (right < 0), -1, pair))
        return np.column_stack([codes, *pairs])

    def _parts(self, features: pl.DataFrame) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        numbers = features.select(self.features.number_names).to_numpy()
        codes = features.select(
            pl.col(name).cast(pl.Enum(self.categories_[name]), strict=False).to_physical().cast(pl.Int64).fill_null(-1)
            for name in self.features.category_names
        ).to_numpy()
        return numbers, self._with_joints(codes)

    def _round(self, rates: NDArray[np.float64]) -> NDArray[np.float64]:
        # A booster splits half-way between two values. Between rates that differ only beyond float32, it would split
        # where ONNX's float32 cannot; rounded rates are either equal or far enough apart.
        rounded: NDArray[np.float64] = np.round(rates, self.params.decimals)
        return rounded

    def _dense(self, numbers: NDArray[np.float64], rates: NDArray[np.float64]) -> NDArray[np.float32]:
        return np.hstack([numbers, self._round(rates)]).astype(np.float32)

    def _sparse(self, numbers: NDArray[np.float64], codes: NDArray[np.int64]) -> sparse.csr_matrix:
        scaled = sparse.csr_matrix(self.scaler_.transform(numbers).astype(np.float32))
        return sparse.hstack([scaled, self.encoder_.transform(codes)], format="csr")

    def _one_hot_names(self) -> tuple[str, ...]:
        names = []
        for name, seen, infrequent in zip(
            self._encoded_names, self.encoder_.categories_, self.encoder_.infrequent_categories_, strict=True
        ):
            rare = set() if infrequent is None else set(infrequent.tolist())
            kept = [code for code in seen.tolist() if code not in rare]
            names += [f"{name}={text}" for text in self._texts(name, kept)]
            names += [f"{name}="] if rare else []  # one column for all: no label is empty
        return tuple(names)

    def _texts(self, name: str, codes: Sequence[int]) -> list[str]:
        """Labels of codes of a category, or of a joint."""
        for joint in self.features.joints:
            if joint.name == name:
                return [f"{left} and {right}" for left, right in self._pairs_of(joint, codes)]
        return [self.categories_[name][code] for code in codes]

    def _one_hot_slices(self) -> list[slice]:
        widths = []
        for seen, rare in zip(self.encoder_.categories_, self.encoder_.infrequent_categories_, strict=True):
            widths.append(len(seen) if rare is None else len(seen) - len(rare) + 1)
        ends = np.cumsum(widths)
        return [slice(int(end - width), int(end)) for end, width in zip(ends, widths, strict=True)]


class _Compiler:
    """Writes a preprocessor out as tables. Lives as long as one call of `to_encoder`."""

    def __init__(self, preprocessor: Preprocessor):
        self.preprocessor = preprocessor
        self.features = preprocessor.features
        names = [*preprocessor.feature_names, *(n.name for n in self.features.numbers if n.name in HIDDEN)]
        self.slot = {name: position for position, name in enumerate(names)}
        self.encoded = {name: preprocessor.encoded(name) for name in self.features.category_names}
        named = dict.fromkeys(name for joint in self.features.joints for name in (joint.left, joint.right))
        self.labelled = {name: position for position, name in enumerate(named)}

    def compile(self) -> Encoder:
        outputs = self.preprocessor.feature_names
        center, scale = self._standardisation(len(outputs))
        return Encoder(
            outputs=tuple(outputs),
            slots=len(self.slot),
            counts={n.field: self._count_table(n) for n in self.features.numbers if isinstance(n, Recorded)},
            codes={name: self._code_table(name) for name in self.features.coded_fields},
            combinations=tuple(
                (self.slot[n.name], tuple(self.slot[part] for part in n.features))
                for n in self.features.numbers
                if isinstance(n, Combination)
            ),
            ratios=tuple(
                (self.slot[n.name], self.slot[n.numerator], self.slot[n.denominator])
                for n in self.features.numbers
                if isinstance(n, Ratio)
            ),
            joints=tuple(self._joint_table(joint) for joint in self.features.joints),
            center=center,
            scale=scale,
        )

    def _joint_table(self, joint: Joint) -> JointTable:
        pairs, (column, amount) = self.preprocessor.pairs(joint)
        return JointTable(
            left=self.labelled[joint.left],
            right=self.labelled[joint.right],
            pairs={
                left: {right: (self.slot[name], value) for right, (name, value) in found.items()}
                for left, found in pairs.items()
            },
            otherwise=(self.slot[column], amount),
        )

    def _standardisation(self, outputs: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        if self.preprocessor.encoding == "target":
            return (), ()
        scaler = self.preprocessor.scaler_
        rest = outputs - len(self.features.number_names)
        return (*scaler.mean_.tolist(), *[0.0] * rest), (*scaler.scale_.tolist(), *[1.0] * rest)

    def _count_table(self, number: Recorded) -> CountTable:
        absent = tuple(
            self.slot[n.name] for n in self.features.numbers if isinstance(n, Absent) and n.field == number.field
        )
        return CountTable(number.maximum, (self.slot[number.name],), number.minimum, absent)

    def _code_table(self, name: str) -> CodeTable:
        values: list[str | int] = list(CODES) if name in DIAGNOSES else list(FIELD[name].codes)
        if not values:
            labels = self.preprocessor.categories_[name]
            values = [label for label in labels if label not in (MISSING, UNKNOWN)]
        keys: Literal["text", "integer", "icd9"] = "icd9" if name in DIAGNOSES else "text"
        if FIELD[name].is_whole_number:
            keys = "integer"
        return CodeTable(
            keys=keys,
            known={value: self._contribution(name, value, None) for value in values},
            missing=self._contribution(name, None, MISSING),
            unknown=self._contribution(name, None, UNKNOWN),
        )

    def _contribution(self, name: str, value: str | int | None, instead: str | None) -> Contribution:
        sums: dict[int, float] = defaultdict(float)
        maxima: dict[int, float] = {}
        named = []
        for number in self.features.numbers:
            if not isinstance(number, Total | Highest) or name not in number.fields:
                continue
            amount = 0.0 if value is None else number.table.get(value, 0.0)
            if amount and isinstance(number, Total):
                sums[self.slot[number.name]] += amount
            elif amount:
                maxima[self.slot[number.name]] = amount
        for category in self.features.categories:
            if category.field == name:
                labels = self.encoded[category.name]
                found = instead or label(category, value)
                for column, amount in labels.get(found, labels[None]).items():
                    sums[self.slot[column]] += amount
                if category.name in self.labelled:
                    named.append((self.labelled[category.name], found))
        return Contribution(tuple(sums.items()), tuple(maxima.items()), tuple(named))
