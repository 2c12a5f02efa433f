"""Registration of a model family: its training in steps, its search space, how its model is stored and exported.

A registration (`Candidate`) that is incomplete, or whose parts contradict each other, fails at import, with a sentence.
Imports no library, as the command line needs the families' names.
"""

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, get_args

from health_predict.params import Encoding, Family

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from health_predict.features.preprocessor import Matrix

Config = Mapping[str, Any]
Classifier = Any  # a classifier of any library with scikit-learn's interface
Report = Callable[[int, float], None]  # step, counted from 1, and validation AUROC

MANY_ROWS = 40_000
_GIVEN = ("fold", "steps", "seed", "report")  # arguments of every training, beside its hyperparameters


@dataclass(frozen=True)
class Fold:
    """Data to train a model on, and to measure its intermediate results on.

    `w_train`, `w_validation`: number of encounters that each row stands for; None: each stands for itself.
    """

    X_train: "Matrix"
    y_train: "NDArray[np.bool_]"
    X_validation: "Matrix"
    y_validation: "NDArray[np.bool_]"
    w_train: "NDArray[np.float64] | None" = None
    w_validation: "NDArray[np.float64] | None" = None


@dataclass(frozen=True)
class Range:
    """One searched hyperparameter: uniform between its bounds, or uniform in the logarithm.

    `default` is good up to MANY_ROWS training encounters, `large` (where it differs) above: more data support more
    leaves (LightGBM, held-out AUROC: 13,862 rows .671 small, .658 large; 79,000 rows .679 and .6805).
    """

    low: float
    high: float
    default: float
    large: float | None = None
    log: bool = False
    whole: bool = False


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A model family. `train(fold, steps, seed, report, **hyperparameters)` trains it in `steps` equal parts.

    After each part, `report` is called with the validation AUROC of the model so far: its boosting rounds, trees or
    solver iterations until then. `report` may raise to end the training.

    `convert(model, features, opset)` returns an ONNX graph with one classifier, for a float32 matrix `X`. Raises
    ValueError for a registration that is incomplete or contradicts itself.
    """

    family: Family
    title: str  # name in runs and tables
    encoding: Encoding
    library: str  # the library that trains it, by its name for pip
    flavour: str  # MLflow's flavour, which stores the model
    seconds: float  # to train the default on 14,000 encounters and one core; the longest search begins first
    space: Mapping[str, Range]
    train: Callable[..., Classifier]
    convert: Callable[[Classifier, int, Mapping[str, int]], Any]

    def __post_init__(self) -> None:
        faults = list(_faults(self))
        if faults:
            raise ValueError(f"family {self.family!r} of training/candidates.py {'; '.join(faults)}")

    def default(self, rows: int) -> Config:
        """The default configuration for `rows` training encounters: the first trial of every search."""
        return {
            name: bounds.default if rows <= MANY_ROWS or bounds.large is None else bounds.large
            for name, bounds in self.space.items()
        }

    def fit(self, config: Config, fold: Fold, steps: int, seed: int, report: Report) -> Classifier:
        """Train a model with one configuration."""
        return self.train(fold, steps, seed, report, **config)


def _faults(candidate: Candidate) -> Iterator[str]:
    """Omissions and errors of a registration, each as the rest of a sentence."""
    if not candidate.family.isidentifier():
        yield "has a name that is not written with letters, digits and underscores"
    if candidate.encoding not in get_args(Encoding):
        yield f"has an encoding that there is not; choose from {', '.join(get_args(Encoding))}"
    yield from (f"does not say its {name}" for name in ("title", "library", "flavour") if not getattr(candidate, name))
    if not candidate.seconds > 0:
        yield "does not say how many `seconds` its default trains, by which searches are ordered"
    parameters = inspect.signature(candidate.train).parameters.values()
    told = tuple(one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD)
    taken = {one.name for one in parameters if one.kind is one.KEYWORD_ONLY}
    if told != _GIVEN:
        yield f"has a training that takes {', '.join(told)} instead of {', '.join(_GIVEN)}"
    if any(one.kind is one.VAR_KEYWORD for one in parameters):
        yield "has a training that takes any hyperparameter (`**`), so that a misspelt one would be noticed in a search"
    elif taken != set(candidate.space):
        yield from (f"searches {name!r}, which its training does not take" for name in {*candidate.space} - taken)
        yield from (
            f"has a training that takes {name!r}, which `space` does not have" for name in taken - {*candidate.space}
        )
    for name, bounds in candidate.space.items():
        yield from (f"has a range of {name!r} {fault}" for fault in _faults_of_range(bounds))


def _faults_of_range(bounds: Range) -> Iterator[str]:
    values = [bounds.default, *([] if bounds.large is None else [bounds.large])]
    if not bounds.low < bounds.high:
        yield "that holds no two values"
    if bounds.log and not bounds.low > 0:
        yield "that is searched in the logarithm and does not begin above 0"
    if not all(bounds.low <= value <= bounds.high for value in values):
        yield "that its default lies outside of"
    if bounds.whole and not all(isinstance(value, int) for value in values):
        yield "of whole numbers whose default is none"


def by_family(*candidates: Candidate) -> Mapping[Family, Candidate]:
    """The candidates by their names. Raises ValueError where two have the same."""
    found = {candidate.family: candidate for candidate in candidates}
    if len(found) < len(candidates):
        raise ValueError("two families of training/candidates.py have the same name")
    return found


def predict_proba(model: Classifier, X: "Matrix") -> "NDArray[np.float64]":
    """Uncalibrated probability of the outcome for each row of X, shape (rows,)."""
    with warnings.catch_warnings():
        # LightGBM's wrapper invents names for unnamed columns, and then warns that they are missing.
        warnings.filterwarnings("ignore", message="X does not have valid feature names", category=UserWarning)
        probabilities: NDArray[np.float64] = model.predict_proba(X)[:, 1].astype("float64")
    return probabilities


def validation_auroc(model: Classifier, fold: Fold) -> float:
    """AUROC on the fold's validation part, on which nothing is fitted."""
    from sklearn.metrics import roc_auc_score  # noqa: PLC0415

    y_proba = predict_proba(model, fold.X_validation)
    return float(roc_auc_score(fold.y_validation, y_proba, sample_weight=fold.w_validation))


def parts_of(total: int, steps: int) -> list[int]:
    """Sizes of `steps` nearly equal steps: `parts_of(100, 3)` is [33, 34, 33]."""
    return [end - start for start, end in pairwise([0, *ends_of(total, steps)])]


def ends_of(total: int, steps: int) -> dict[int, int]:
    """Number of each step, by its end: `ends_of(100, 3)` is {33: 1, 67: 2, 100: 3}."""
    return {round(total * step / steps): step for step in range(1, steps + 1)}
