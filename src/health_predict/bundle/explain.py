"""Why this probability: what each clinical factor adds to, or takes from, the risk of the reference patient.

Shapley values with one reference encounter (Strumbelj and Kononenko, KAIS 2014;41:647): a factor's contribution is
the change in probability when its fields go from the reference's to the patient's values, averaged over orders in which
the factors change. In each order the changes add up to the whole difference, so the averages do too. All orders
count, exactly, where few factors differ; beyond that a fixed set of orders, each with its reverse.

A contribution says what the model makes of a factor. It does not say what would happen if the factor were changed.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import combinations
from math import factorial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from health_predict.bundle.model import Bundle
from health_predict.data.field import Factor
from health_predict.data.schema import FACTORS
from health_predict.features.diagnoses import settle
from health_predict.features.encoder import Codes

EXACT_UP_TO = 6  # factors that differ: 64 scores; one more doubles them
ORDERS = 12  # of sampled orders, half of them the reverse of another
SEED = 0


@dataclass(frozen=True)
class Contribution:
    factor: Factor
    amount: float  # of probability; positive raises the risk
    fields: tuple[str, ...]  # of the factor, those that the model reads


@dataclass(frozen=True)
class Explanation:
    """`probability` = `reference_probability` + the sum of the contributions, largest first."""

    probability: float
    reference_probability: float
    contributions: list[Contribution]


class Explainer:
    """Explains the scores of one bundle against its reference encounter."""

    def __init__(self, bundle: Bundle):
        self.bundle = bundle
        self.reference: Mapping[str, Any] = bundle.manifest.reference_encounter.values
        self._fields = bundle.encoder.fields
        self._factors = [f for f in FACTORS if any(name in self._fields for name in f.fields)]

    @cached_property
    def reference_probability(self) -> float:
        return self.bundle.predict_one(self.reference)

    def explain(self, encounter: Mapping[str, Any]) -> Explanation:
        """Contribution of every factor that the model reads, zero where the patient is as the reference."""
        encounter = settle(encounter, self._fields)
        probability, _ = self.bundle.score(encounter)
        differing = [position for position, factor in enumerate(self._factors) if self._differs(factor, encounter)]
        coalitions, weights = _design(len(differing))
        amounts = np.zeros(len(self._factors))
        if differing:
            scores = self.bundle.predict_vectors(self._encoded(encounter, differing, coalitions))
            amounts[differing] = weights @ scores
        contributions = [
            Contribution(factor, float(amount), tuple(name for name in factor.fields if name in self._fields))
            for factor, amount in zip(self._factors, amounts, strict=True)
        ]
        contributions.sort(key=lambda contribution: -abs(contribution.amount))
        return Explanation(probability, self.reference_probability, contributions)

    def _differs(self, factor: Factor, encounter: Mapping[str, Any]) -> bool:
        return any(encounter.get(name) != self.reference.get(name) for name in factor.fields if name in self._fields)

    def _encoded(
        self, encounter: Mapping[str, Any], differing: list[int], coalitions: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """Model inputs where row i has the patient's values in the factors of coalition i, else the reference's."""
        rows = len(coalitions)
        member = {name: column for column, p in enumerate(differing) for name in self._factors[p].fields}
        nowhere = np.zeros(rows, dtype=np.intp)
        columns: dict[str, NDArray[Any] | Codes] = {}
        for name in self._fields:
            index = coalitions[:, member[name]].astype(np.intp) if name in member else nowhere
            values = [self.reference.get(name), encounter.get(name)]
            if name in self.bundle.encoder.counts:
                columns[name] = np.array([np.nan if value is None else value for value in values])[index]
            else:
                columns[name] = Codes(index, values)
        return self.bundle.encoder.encode_table(columns)


@cache
def _design(factors: int) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Coalitions to score, shape (rows, factors), and the weights, (factors, rows), that turn scores into Shapley
    values."""
    if factors <= EXACT_UP_TO:
        return _all_coalitions(factors)
    return _sampled_orders(factors)


def _all_coalitions(factors: int) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    members = [set(c) for size in range(factors + 1) for c in combinations(range(factors), size)]
    coalitions = np.array([[factor in m for factor in range(factors)] for m in members], dtype=bool)
    weights = np.zeros((factors, len(members)))
    for row, coalition in enumerate(members):
        size = len(coalition)
        for factor in range(factors):
            if factor in coalition:
                weights[factor, row] = factorial(size - 1) * factorial(factors - size) / factorial(factors)
            else:
                weights[factor, row] = -factorial(size) * factorial(factors - size - 1) / factorial(factors)
    return coalitions.reshape(len(members), factors), weights


def _sampled_orders(factors: int) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    rng = random.Random(SEED)  # noqa: S311  # no secret; numpy's own generators would take 2 MiB
    drawn = [rng.sample(range(factors), factors) for _ in range(ORDERS // 2)]
    orders = [order for one in drawn for order in (one, one[::-1])]
    rows: dict[tuple[bool, ...], int] = {}
    steps = []
    for order in orders:
        present = [False] * factors
        before = rows.setdefault(tuple(present), len(rows))
        for factor in order:
            present[factor] = True
            after = rows.setdefault(tuple(present), len(rows))
            steps.append((factor, before, after))
            before = after
    weights = np.zeros((factors, len(rows)))
    for factor, before, after in steps:
        weights[factor, after] += 1 / ORDERS
        weights[factor, before] -= 1 / ORDERS
    return np.array(list(rows), dtype=bool), weights
