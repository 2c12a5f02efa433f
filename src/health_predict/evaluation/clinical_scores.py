"""The two readmission scores that clinicians know, as far as the dataset allows: what a model has to beat.

Both are adapted to the columns at hand, as their docstrings say; neither is the published score.
"""

from collections.abc import Callable, Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

from health_predict.data.schema import DIAGNOSES
from health_predict.features.diagnoses import charlson_weights, normalise

Points = NDArray[np.int64]

ACUTE = (1, 2, 7)  # admission types: emergency, urgent, trauma center
PLANNED = (3, 4)  # elective, newborn
EMERGENCY_ROOM = 7  # admission source; it decides where the type is not recorded (2% of the cohort are acute by it)


def lace(encounters: pl.DataFrame) -> Points:
    """LACE-adapted, 0 to 19 points for each encounter, row order kept (van Walraven et al., CMAJ 2010;182:551).

    Length of stay: 1, 2, 3 days 1, 2, 3 points; 4-6 days 4; 7-13 days 5; from 14 days 7. Acute admission: 3.
    Comorbidity: 1, 2, 3 as they are, from 4 on 5. Emergency visits: one point each, at most 4.
    Adaptations: an admission of unrecorded type is acute if it came through the emergency room; comorbidity is the
    Charlson index (Quan et al. 2005, three digits, the three recorded diagnoses) in place of the score's own
    weights; emergency visits are those of the year before, not of six months.
    """
    days = pl.col("time_in_hospital")
    stay = (
        pl.when(days >= 14)
        .then(7)
        .when(days >= 7)
        .then(5)
        .when(days >= 4)
        .then(4)
        .otherwise(days.clip(0, 3).cast(pl.Int64))
    )
    emergency = pl.col("number_emergency").clip(0, 4).cast(pl.Int64)
    points = encounters.select(stay.cast(pl.Int64) + _acute() * 3 + emergency).to_series().to_numpy()
    charlson = charlson_index(encounters)
    return points + np.where(charlson >= 4, 5, charlson)


def hospital(encounters: pl.DataFrame) -> Points:
    """HOSPITAL-partial, 0 to 11 points for each encounter, row order kept (Donze et al., JAMA Intern Med 2013;173:632).

    Oncology: 2. Any procedure: 1. Not elective: 1. Stays in the year before: 1-5 2, above 5 5. From 5 days on: 2.
    Adaptations: hemoglobin and sodium at discharge (one point each) are not in the data; "not elective" is LACE's
    acute admission above; oncology is the admitting physician's specialty, not the discharging service; procedures
    are those other than laboratory tests.
    """
    stays = pl.col("number_inpatient")
    points = (
        pl.col("medical_specialty").str.contains("Onco").fill_null(value=False).cast(pl.Int64) * 2
        + (pl.col("num_procedures") > 0).cast(pl.Int64)
        + _acute()
        + pl.when(stays > 5).then(5).when(stays >= 1).then(2).otherwise(0).cast(pl.Int64)
        + (pl.col("time_in_hospital") >= 5).cast(pl.Int64) * 2
    )
    return encounters.select(points).to_series().to_numpy()


def charlson_index(encounters: pl.DataFrame) -> Points:
    """Charlson index of the recorded diagnoses of each encounter, row order kept; see `features.diagnoses`."""
    codes = pl.concat([encounters[name] for name in DIAGNOSES]).unique()
    families = charlson_weights().values()
    weights = np.array([[family.get(normalise(code) or "", 0) for family in families] for code in codes])
    positions = np.column_stack(
        [encounters[name].replace_strict(codes, range(len(codes)), return_dtype=pl.Int64) for name in DIAGNOSES]
    )
    index: Points = weights[positions].max(axis=1).sum(axis=1)
    return index


def _acute() -> pl.Expr:
    kind, source = pl.col("admission_type_id"), pl.col("admission_source_id")
    by_source = ~kind.is_in(PLANNED).fill_null(value=False) & (source == EMERGENCY_ROOM).fill_null(value=False)
    return (kind.is_in(ACUTE).fill_null(value=False) | by_source).cast(pl.Int64)


SCORES: Mapping[str, Callable[[pl.DataFrame], Points]] = {"LACE (adapted)": lace, "HOSPITAL (partial)": hospital}
