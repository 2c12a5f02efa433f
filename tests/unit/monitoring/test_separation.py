import numpy as np
import polars as pl
import pytest

from factories import encounters
from health_predict.data.cohort import label, select_cohort
from health_predict.errors import DataError
from health_predict.monitoring.drift import field_drift
from health_predict.monitoring.reference import profile, value_counts
from health_predict.monitoring.separation import separation
from health_predict.params import DriftParams

PARAMS = DriftParams(replicates=60)
TABLE = select_cohort(encounters(9_000, seed=3))
BEFORE, AFTER = TABLE.head(5_000), TABLE.tail(3_000)


def test_a_classifier_cannot_tell_like_from_like():
    found = separation(BEFORE, AFTER, PARAMS)
    assert not found.detected
    assert 0.45 < found.auroc < 0.55


def test_a_classifier_sees_a_combination_that_no_single_field_shows():
    # Dealing one column out anew breaks what goes with what, and leaves every column as it was.
    odd = {"num_medications": pl.col("num_lab_procedures").clip(1, 80).cast(pl.Int32)}
    tied = TABLE.with_columns(**odd)
    before, after = tied.head(5_000), tied.tail(3_000)
    dealt = np.random.default_rng(1).permutation(len(after))
    after = after.with_columns(after["num_medications"].gather(dealt))
    reference = profile(label(before, "lt30"), np.array([0.1]), params=PARAMS)
    assert not field_drift(reference, value_counts(after), PARAMS).detected
    found = separation(before, after, PARAMS)
    assert found.auroc > 0.8
    assert "AUROC" in found.reasons[0]


def test_a_classifier_ignores_administrative_fields():
    rebilled = AFTER.with_columns(pl.lit("WC").alias("payer_code"))
    assert separation(BEFORE, rebilled, PARAMS) == separation(BEFORE, AFTER, PARAMS)


def test_too_few_encounters_to_tell_apart_are_an_error():
    with pytest.raises(DataError, match="10 current encounters"):
        separation(BEFORE, AFTER.head(10), PARAMS)
