"""Logistic recalibration, intercept and slope: turns a model's log-odds into a calibrated probability.

Cox, Biometrika 1958;45:562: logit(p') = intercept + slope * logit(p). A positive slope keeps the order of scores, and
so AUROC and average precision. Plain numpy, as the service applies it too.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

EDGE = 1e-6  # least distance of probabilities from 0 and 1, where log-odds are infinite


@dataclass(frozen=True)
class Calibration:
    intercept: float = 0.0
    slope: float = 1.0

    def apply(self, log_odds: NDArray[np.floating]) -> NDArray[np.float64]:
        """Probabilities, 0 to 1, same shape as the log-odds."""
        return 1 / (1 + np.exp(-(self.intercept + self.slope * log_odds.astype(np.float64))))

    def apply_one(self, log_odds: float) -> float:
        """Probability for one encounter: the same number as `apply`, without an array."""
        # numpy's exp: the standard library's differs from it in the last bit.
        return 1 / (1 + float(np.exp(-(self.intercept + self.slope * log_odds))))

    def then(self, second: "Calibration") -> "Calibration":
        """The calibration equal to this one followed by `second`, applied to the log-odds of its probabilities."""
        return Calibration(second.intercept + second.slope * self.intercept, second.slope * self.slope)


def log_odds(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """log(p / (1 - p)) with p kept within EDGE of 0 and 1, same shape."""
    p = np.clip(probabilities.astype(np.float64), EDGE, 1 - EDGE)
    return np.log(p / (1 - p))
