"""From a model's score to a probability that means what it says: logistic recalibration, two numbers.

Cox, Biometrika 1958;45:562: logit(p') = intercept + slope * logit(p). With a positive slope the order of scores
stays, and with it AUROC and average precision. Plain numpy, as the service applies it too.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

EDGE = 1e-6  # scores are kept this far from 0 and 1, where the logit has no value


@dataclass(frozen=True)
class Calibration:
    intercept: float = 0.0
    slope: float = 1.0

    def apply(self, scores: NDArray[np.floating]) -> NDArray[np.float64]:
        """Probabilities, same shape as the scores."""
        p = np.clip(scores.astype(np.float64), EDGE, 1 - EDGE)
        return 1 / (1 + np.exp(-(self.intercept + self.slope * np.log(p / (1 - p)))))

    def apply_one(self, score: float) -> float:
        """The same number for one score, without an array."""
        p = min(max(score, EDGE), 1 - EDGE)
        # numpy's exp and log: the standard library's differ from them in the last bit.
        return 1 / (1 + float(np.exp(-(self.intercept + self.slope * float(np.log(p / (1 - p)))))))
