"""Is a field missing far more often than among the encounters that the model was trained on?

Plain Python, as both the service and the scoring of files ask it.
"""

import math
from collections.abc import Mapping

from health_predict.params import MissingParams


def missing_limits(reference: Mapping[str, float], params: MissingParams) -> dict[str, float]:
    """For each field, the share of encounters without a value from which it is missing far more often.

    `reference` is the share in the training encounters, by field. A limit above 1 can never be reached.

    >>> missing_limits({"diag_1": 0.0, "weight": 0.97}, MissingParams(max_rise=0.05))
    {'diag_1': 0.05, 'weight': 1.02}
    """
    return {field: share + params.max_rise for field, share in reference.items()}


def missing_far_more_often(
    missing: Mapping[str, int], encounters: int, reference: Mapping[str, float], params: MissingParams
) -> list[str]:
    """The fields, in the order of `missing`, that lack a value in more encounters than the limit, and beyond chance.

    `missing` counts encounters without a value, of so many `encounters`; fields without a reference are not judged.
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
    """Chernoff's bound on the probability that at least `count` of the encounters lack what a `usual` share lacks."""
    seen = count / encounters
    if seen <= usual:
        return 1.0
    rest = (1 - seen) * math.log((1 - seen) / (1 - usual)) if seen < 1 else 0.0
    return math.exp(-encounters * (seen * math.log(seen / usual) + rest))
