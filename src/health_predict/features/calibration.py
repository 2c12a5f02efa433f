"""From a model's log-odds to a probability that means what it says: logistic recalibration, two numbers.

Cox, Biometrika 1958;45:562: logit(p') = intercept + slope * logit(p). With a positive slope the order of scores
stays, and with it AUROC and average precision. Plain numpy, as the service applies it too.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

EDGE = 1e-6  # probabilities are kept this far from 0 and 1, where log-odds have no value


@dataclass(frozen=True)
class Calibration:
    intercept: float = 0.0
    slope: float = 1.0

    def apply(self, log_odds: NDArray[np.floating]) -> NDArray[np.float64]:
        """Probabilities, same shape as the log-odds."""
        return 1 / (1 + np.exp(-(self.intercept + self.slope * log_odds.astype(np.float64))))

    def apply_one(self, log_odds: float) -> float:
        """The same number for one encounter, without an array."""
        # numpy's exp: the standard library's differs from it in the last bit.
        return 1 / (1 + float(np.exp(-(self.intercept + self.slope * log_odds))))

    def then(self, second: "Calibration") -> "Calibration":
        """Both in one: `second` applied to the log-odds of what this one gives."""
        return Calibration(second.intercept + second.slope * self.intercept, second.slope * self.slope)


def log_odds(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """log(p / (1 - p)) with p kept within EDGE of 0 and 1, same shape."""
    p = np.clip(probabilities.astype(np.float64), EDGE, 1 - EDGE)
    return np.log(p / (1 - p))
