"""Results of a hyperparameter search, wherever its trials ran; and the search of one trial, without a cluster."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from health_predict.params import Family, SearchParams
from health_predict.training.candidate import Config
from health_predict.training.candidates import CANDIDATES
from health_predict.training.fit import Fitted, Prepared, fit

METRIC = "val_roc_auc"


@dataclass(frozen=True)
class Trial:
    """One sample of a family's search space. `auroc`: validation AUROC after each trained step."""

    number: int
    config: Config
    auroc: tuple[float, ...]
    stopped: bool  # whether ASHA ended it before the last step
    seconds: float

    @property
    def score(self) -> float:
        return self.auroc[-1]


@dataclass(frozen=True)
class Search:
    """All trials of one family, in the order they were proposed."""

    family: Family
    trials: tuple[Trial, ...]

    @property
    def best(self) -> Trial:
        """The full trial with the highest validation AUROC; of equals, the earliest."""
        return max((trial for trial in self.trials if not trial.stopped), key=lambda trial: trial.score)

    @property
    def stopped_share(self) -> float:
        return sum(trial.stopped for trial in self.trials) / len(self.trials)

    @property
    def stopped_at(self) -> Mapping[int, int]:
        """How many trials ASHA stopped at each rung (step)."""
        return dict(sorted(Counter(len(trial.auroc) for trial in self.trials if trial.stopped).items()))


def only_trial(
    family: Family,
    prepared: Prepared,
    params: SearchParams,
    capacity: float,
    on_trial: Callable[[Family, Trial], None],
) -> tuple[Search, Fitted]:
    """A search of one trial, and its model: the family's defaults, fitted once in this process, without a cluster."""
    config = CANDIDATES[family].default(len(prepared.fold.y_train))
    auroc: list[float] = []
    began = time.monotonic()
    fitted = fit(family, config, prepared, params, capacity, lambda _step, value: auroc.append(float(value)))
    trial = Trial(0, config, tuple(auroc), stopped=False, seconds=time.monotonic() - began)
    on_trial(family, trial)
    return Search(family, (trial,)), fitted
