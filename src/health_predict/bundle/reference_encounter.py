"""Chooses the reference patient of explanations: typical values, a few of them changed for the risk to be the median.

A patient with nothing but typical values has a low risk, as most patients were not in hospital in the year before:
beside it, nearly everybody looks worse than typical.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from health_predict.bundle.model import Bundle, ReferenceEncounter
from health_predict.data.field import Value
from health_predict.data.schema import CLINICAL, DRUGS, FIELD, MISSING
from health_predict.features.encoder import Codes, Encoder
from health_predict.params import BundleParams

Encounter = dict[str, Any]
Counts = Mapping[str, Mapping[Any, int]]  # field -> value, None for missing -> encounters

MEDIAN = 50  # percentile
_PERSONAL = ("race", "gender")  # of the typical patient: nobody is given another one to raise a risk
_DRUG_FIELDS = tuple(drug.replace("-", "_") for drug in DRUGS)


def reference_encounter(
    bundle: Bundle, counts: Mapping[str, Mapping[str, int]], params: BundleParams
) -> ReferenceEncounter:
    """The typical encounter, with as few values changed as bring its risk to the median of `manifest.percentiles`.

    `counts` has how many encounters have each value of each clinical field, values as text, `?` for missing: no
    patient's row is read. Up to `reference_changes` fields are changed, each to a value with a share of at least
    `reference_min_share`; `change` and `diabetesMed` follow from the drugs. Race, sex and administrative fields stay
    typical. Of the encounters whose risk is at most `reference_tolerance` percentiles from the median, it is the one
    with the fewest changed values, and among equals the one with the likeliest values (product of shares); without
    any, the one with the nearest risk. The result has the fields that the model reads.
    """
    typed = {name: {_value(name, text): count for text, count in found.items()} for name, found in counts.items()}
    typical = typical_encounter(typed)
    fields = [field.name for field in CLINICAL if field.name in bundle.encoder.fields]
    options = _options(typical, typed, fields, params.reference_min_share)
    found: list[tuple[float, int, float, Encounter]] = []
    for size in range(params.reference_changes + 1):
        candidates = _changed(typical, options, size)
        if candidates:
            risks = bundle.predict_vectors(bundle.encoder.encode_table(_columns(candidates, bundle.encoder)))
            distances = _distance(risks, bundle.manifest.percentiles, params.reference_tolerance)
            changes = (len(_differing(one, typical, fields)) for one in candidates)
            unlikelihoods = (-_likelihood(one, typed) for one in candidates)
            found += zip(distances.tolist(), changes, unlikelihoods, candidates, strict=True)
        if any(distance == 0 for distance, *_ in found):
            break
    *_, chosen = min(found, key=lambda one: one[:3])
    return ReferenceEncounter({name: chosen[name] for name in fields}, _differing(chosen, typical, fields))


def typical_encounter(counts: Counts) -> Encounter:
    """The median of each quantity and the most frequent value of each other field, without contradiction.

    Most encounters have a drug, though each single drug is absent from most: one drug is given, in one dose, where
    that is likelier than that none is.
    """
    usual = _settled(
        {name: _median(found) if FIELD[name].is_quantity else _mode(found) for name, found in counts.items()}
    )
    treated = [_settled(usual | {name: dose}) for name in _DRUG_FIELDS if name in counts for dose in counts[name]]
    return max([usual, *treated], key=lambda one: _likelihood(one, counts))


def _value(name: str, text: str) -> Value | None:
    return None if text == MISSING else FIELD[name].type(text)


def _median(counts: Mapping[Any, int]) -> Any:
    numbers = sorted(value for value in counts if value is not None)
    half, until = sum(counts[number] for number in numbers) / 2, 0
    for number in numbers:
        until += counts[number]
        if until >= half:
            return number
    return None


def _mode(counts: Mapping[Any, int]) -> Any:
    return max(sorted(counts, key=str), key=lambda value: counts[value], default=None)


def _settled(encounter: Encounter) -> Encounter:
    """The encounter with the two fields that the drugs decide in the dataset: `diabetesMed` is Yes where a drug is
    given, `change` is Ch where a dose was changed or several drugs are given."""
    doses = [encounter[name] for name in _DRUG_FIELDS if encounter.get(name, "No") != "No"]
    changed = len(doses) > 1 or "Up" in doses or "Down" in doses
    decided = {"diabetesMed": "Yes" if doses else "No", "change": "Ch" if changed else "No"}
    return encounter | {name: value for name, value in decided.items() if name in encounter}


def _options(typical: Encounter, counts: Counts, fields: Sequence[str], least: float) -> list[tuple[str, Any]]:
    """Each field that may be changed, with each value that has a share of at least `least` and is not the typical."""
    free = [name for name in fields if not FIELD[name].administrative and name not in _PERSONAL]
    rows = {name: sum(counts[name].values()) for name in free}
    return [
        (name, value)
        for name in free
        for value, count in counts[name].items()
        if count >= least * rows[name] and value != typical[name]
    ]


def _changed(typical: Encounter, options: Sequence[tuple[str, Any]], size: int) -> list[Encounter]:
    """The encounter with `size` fields changed, in every way in which no value contradicts the drugs."""
    ways = (dict(way) for way in combinations(options, size) if len(dict(way)) == size)
    changed = ((way, _settled(typical | way)) for way in ways)
    return [encounter for way, encounter in changed if way.items() <= encounter.items()]


def _differing(encounter: Encounter, typical: Encounter, fields: Sequence[str]) -> list[str]:
    return [name for name in fields if encounter[name] != typical[name]]


def _likelihood(encounter: Encounter, counts: Counts) -> float:
    """Product of the shares of the values."""
    return prod(counts[name].get(value, 0) / sum(counts[name].values()) for name, value in encounter.items())


def _columns(encounters: Sequence[Encounter], encoder: Encoder) -> dict[str, NDArray[Any] | Codes]:
    columns: dict[str, NDArray[Any] | Codes] = {}
    for name in encoder.fields:
        values = [one[name] for one in encounters]
        if name in encoder.counts:
            columns[name] = np.array([np.nan if value is None else value for value in values])
        else:
            distinct = list(dict.fromkeys(values))
            columns[name] = Codes(np.array([distinct.index(value) for value in values]), distinct)
    return columns


def _distance(risks: NDArray[np.float64], percentiles: Sequence[float], tolerance: float) -> NDArray[np.float64]:
    """How far each risk is from the median of the percentiles; 0 where it is at most `tolerance` percentiles away."""
    low, high = np.interp([MEDIAN - tolerance, MEDIAN + tolerance], range(len(percentiles)), percentiles)
    return np.where((low <= risks) & (risks <= high), 0.0, np.abs(risks - percentiles[MEDIAN]))
