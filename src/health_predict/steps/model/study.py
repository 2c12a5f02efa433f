"""`health-predict evaluate --protocol ...`: measures a family on the whole cohort, beside the clinical scores."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from health_predict.data.cohort import LabelledEncounters, is_eligible, label, select_cohort
from health_predict.evaluation.clinical_scores import SCORES
from health_predict.evaluation.metrics import AurocComparison, Metrics, compare_auroc, evaluate
from health_predict.evaluation.operating_point import in_words, threshold_at
from health_predict.params import Family, Params, Protocol, Target
from health_predict.store import layout
from health_predict.store.manifests import completed
from health_predict.store.storage import Storage
from health_predict.store.tables import read_table
from health_predict.training.study import study as score_cohort


@dataclass(frozen=True)
class StudyReport:
    """Metrics of a family's defaults, with intervals from resampled patients, and the clinical scores' AUROC."""

    protocol: Protocol
    family: Family
    target: Target
    synthetic: bool
    metrics: Metrics
    eligible: Metrics  # of the eligible index stays among them, flagged from the same risk on
    clinical: dict[str, AurocComparison]
    operating_point: str  # what flagging as many as there is capacity for means for 100 discharges


def study(
    storage: Storage,
    params: Params,
    protocol: Protocol,
    family: Family,
    target: Target,
    on_fold: Callable[[int, int], None],
) -> StudyReport:
    """Measure a family on the cohort; as many of the scored encounters are flagged as `params` has capacity for.

    Raises StorageError before `data validate`.
    """
    manifest = completed(storage, layout.VALIDATION_MANIFEST, "data validate")
    cohort = label(select_cohort(read_table(storage, layout.VALIDATED)), target)
    scores = score_cohort(cohort, protocol, family, params.study, params.preprocessor, params.search, on_fold)
    scored = LabelledEncounters(cohort.encounters[scores.rows], cohort.outcomes[scores.rows])
    threshold = threshold_at(params.bundle.capacity, scores.y_proba)

    def measure(data: LabelledEncounters, y_proba: NDArray[np.float64]) -> Metrics:
        return evaluate(data.outcomes, y_proba, data.patients, threshold, params.bootstrap)

    eligible = is_eligible(scored.encounters)
    found = measure(scored, scores.y_proba)
    return StudyReport(
        protocol=protocol,
        family=family,
        target=target,
        synthetic=manifest["result"]["synthetic"],
        metrics=found,
        eligible=measure(scored.of(eligible), scores.y_proba[eligible]),
        clinical={
            name: compare_auroc(
                scored.outcomes, scores.y_proba, score(scored.encounters), scored.patients, params.bootstrap
            )
            for name, score in SCORES.items()
        },
        operating_point=in_words(found.flag_rate.estimate, found.precision.estimate, found.recall.estimate, target),
    )
