"""The operating point: from which risk on a discharge is flagged, so that a care team can follow up all that are."""

import numpy as np
from numpy.typing import NDArray


def threshold_at(capacity: float, y_proba: NDArray[np.float64], represents: NDArray[np.float64] | None = None) -> float:
    """The risk from which at most the share `capacity` of the encounters is flagged, and as many as this allows.

    `y_proba` are the risks of the encounters, shape (rows,), 0 to 1. With `represents`, how many encounters each row
    stands for, the share is of the encounters represented. Equal risks are flagged together or not at all, so ties make
    the share smaller. The threshold lies half-way between the lowest risk that is flagged and the next one: rounding
    flags nobody else. It is above all risks where even the highest of them is shared by too many.

    >>> threshold_at(0.5, np.array([0.1, 0.3, 0.2, 0.4]))
    0.25
    >>> threshold_at(0.5, np.array([0.1, 0.3, 0.3, 0.3]))
    0.65
    """
    weights = np.ones(len(y_proba)) if represents is None else represents
    risks, place = np.unique(y_proba, return_inverse=True)
    flagged = np.cumsum(np.bincount(place, weights)[::-1])[::-1]  # encounters from each risk on
    first = int(np.searchsorted(-flagged, -capacity * weights.sum() * (1 + 1e-9)))  # of rounding errors in the sum
    below, above = float(risks[first - 1]), float(risks[first]) if first < len(risks) else 1.0
    middle = (below + above) / 2
    return middle if middle > below else float(np.nextafter(below, 2.0))
