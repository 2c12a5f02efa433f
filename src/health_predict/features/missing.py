"""Tests whether a field is missing far more often than in the training encounters.

Plain Python, as both the service and the scoring of files use it.
"""

import math
from collections.abc import Mapping

from health_predict.params import MissingParams


def missing_limits(reference: Mapping[str, float], params: MissingParams) -> dict[str, float]:
    """For each field, the limit of its missing share, from which it counts as missing far more often.

    `reference` is the missing share in the training encounters, 0 to 1, by field. A limit above 1 is never reached.

    >>> missing_limits({"diag_1": 0.0, "weight": 0.97}, MissingParams(max_rise=0.05))
    {'diag_1': 0.05, 'weight': 1.02}
    """
    return {field: share + params.max_rise for field, share in reference.items()}


def missing_far_more_often(
    missing: Mapping[str, int], encounters: int, reference: Mapping[str, float], params: MissingParams
) -> list[str]:
    """The fields, in the order of `missing`, whose missing share is above its limit, and by more than chance.

    `missing` counts encounters without a value, out of `encounters`; fields without a reference are left out.
    """
    limits = missing_limits(reference, params)
    return [
        field
        for field, count in missing.items()
        if field in limits
        and count > limits[field] * encounters
        and _chance(count, encounters, max(reference[field], params.least_share)) < params.max_chance
    ]


def _chance(count: int, encounters: int, usual: float) -> float:
    """Chernoff's bound on the probability of at least `count` missing values where a share `usual` is missing."""
    seen = count / encounters
    if seen <= usual:
        return 1.0
    rest = (1 - seen) * math.log((1 - seen) / (1 - usual)) if seen < 1 else 0.0
    return math.exp(-encounters * (seen * math.log(seen / usual) + rest))
