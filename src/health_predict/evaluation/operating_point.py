"""The operating point: from which risk on a discharge is flagged, so that a care team can follow up all that are."""

import numpy as np
from numpy.typing import NDArray

from health_predict.params import OUTCOMES, Target


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


def in_words(flag_rate: float, ppv: float, sensitivity: float, target: Target = "lt30") -> str:
    """What a threshold means for the discharges of a hospital, in one sentence. All are shares, 0 to 1.

    `ppv` is the share of the flagged that are readmitted, `sensitivity` the share of the readmitted that are flagged.
    Counts are of 100 discharges, or of 1,000 or 10,000 where fewer than three readmissions would be found.

    >>> in_words(0.20, 0.22, 0.39)
    'Of 100 discharges 20 are flagged; 4 of them are readmitted within 30 days, which is 39 of every 100 who are.'
    >>> in_words(0.01, 0.25, 0.02)
    'Of 10,000 discharges 100 are flagged; 25 of them are readmitted within 30 days, which is 2 of every 100 who are.'
    >>> in_words(0.20, 0.66, 0.33, target="any")
    'Of 100 discharges 20 are flagged; 13 of them are readmitted at any time, which is 33 of every 100 who are.'
    """
    when = OUTCOMES[target].removeprefix("readmission ")
    if flag_rate == 0:
        return "Of 100 discharges none is flagged."
    of = next((size for size in (100, 1_000) if size * flag_rate * ppv >= 3), 10_000) if ppv > 0 else 100
    flagged, found, caught = _whole(of * flag_rate), _whole(of * flag_rate * ppv), _whole(100 * sensitivity)
    begins = f"Of {of:,} discharges {flagged} {_are(flagged)} flagged; "
    if ppv == 0:
        return f"{begins}none of them is readmitted {when}."
    return f"{begins}{found} of them {_are(found)} readmitted {when}, which is {caught} of every 100 who are."


def _whole(number: float) -> str:
    return f"{number:,.0f}" if number >= 1 else "fewer than 1"


def _are(number: str) -> str:
    return "is" if number.endswith(" 1") or number == "1" else "are"
