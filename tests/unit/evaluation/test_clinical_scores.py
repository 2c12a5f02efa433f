"""The clinical scores give the published points, and rank the real cohort as well as they are known to."""

import os
import zipfile
from pathlib import Path

import polars as pl
import pytest

from health_predict.data.cohort import outcome, select_cohort
from health_predict.data.decode import decode
from health_predict.data.validation import validate
from health_predict.evaluation.clinical_scores import charlson_index, hospital, lace
from health_predict.evaluation.metrics import auroc
from health_predict.features import diagnoses
from health_predict.params import ValidationParams
from health_predict.simulation.synthetic import generate

LOWEST = {
    "admission_type_id": 3,
    "admission_source_id": 1,
    "time_in_hospital": 1,
    "number_emergency": 0,
    "number_inpatient": 0,
    "num_procedures": 0,
    "medical_specialty": None,
    "diag_1": "401",
    "diag_2": None,
    "diag_3": None,
}


def one(**changes) -> pl.DataFrame:
    """An invented planned stay of one day with nothing else, but for the changes."""
    encounter = generate(1, seed=1).row(0, named=True) | LOWEST | changes
    return pl.DataFrame([encounter], schema=generate(1, seed=1).schema)


@pytest.mark.parametrize(
    ("days", "points"),
    [(1, 1), (2, 2), (3, 3), (4, 4), (6, 4), (7, 5), (13, 5), (14, 7), (30, 7)],
)
def test_lace_length_of_stay(days, points):
    assert lace(one(time_in_hospital=days)).tolist() == [points]


@pytest.mark.parametrize(
    ("changes", "points"),
    [
        ({"admission_type_id": 1}, 3),
        ({"admission_type_id": 2}, 3),
        ({"admission_type_id": 7}, 3),
        ({"admission_type_id": 5, "admission_source_id": 7}, 3),  # unrecorded, but through the emergency room
        ({"admission_type_id": None, "admission_source_id": 7}, 3),
        ({"admission_type_id": 3, "admission_source_id": 7}, 0),
        ({"admission_type_id": 5, "admission_source_id": 1}, 0),
        ({"admission_type_id": None, "admission_source_id": None}, 0),
        ({"number_emergency": 3}, 3),
        ({"number_emergency": 9}, 4),
        ({"diag_1": "410"}, 1),
        ({"diag_1": "585"}, 2),
        ({"diag_1": "410", "diag_2": "585"}, 3),
        ({"diag_1": "585", "diag_2": "250.6"}, 5),  # four and more count five
        ({"diag_1": "197"}, 5),
    ],
)
def test_lace_adds_points_to_the_one_for_the_day(changes, points):
    assert lace(one(**changes)).tolist() == [1 + points]


@pytest.mark.parametrize(
    ("changes", "points"),
    [
        ({}, 0),
        ({"medical_specialty": "Hematology/Oncology"}, 2),
        ({"medical_specialty": "Cardiology"}, 0),
        ({"num_procedures": 1}, 1),
        ({"num_procedures": 6}, 1),
        ({"admission_type_id": 1}, 1),
        ({"number_inpatient": 1}, 2),
        ({"number_inpatient": 5}, 2),
        ({"number_inpatient": 6}, 5),
        ({"time_in_hospital": 4}, 0),
        ({"time_in_hospital": 5}, 2),
    ],
)
def test_hospital_points(changes, points):
    assert hospital(one(**changes)).tolist() == [points]


def test_the_scores_of_a_table_are_those_of_its_rows():
    encounters = generate(60, seed=2)
    rows = [encounters[row] for row in range(60)]
    assert lace(encounters).tolist() == [lace(row).item() for row in rows]
    assert hospital(encounters).tolist() == [hospital(row).item() for row in rows]
    codes = encounters.select("diag_1", "diag_2", "diag_3").rows()
    assert charlson_index(encounters).tolist() == [diagnoses.charlson_index(row) for row in codes]


@pytest.mark.skipif("HEALTH_PREDICT_RAW_DATA" not in os.environ, reason="HEALTH_PREDICT_RAW_DATA names no dataset zip")
def test_the_scores_rank_the_real_cohort_as_known():
    with zipfile.ZipFile(Path(os.environ["HEALTH_PREDICT_RAW_DATA"])) as archive:
        name = next(name for name in archive.namelist() if name.endswith("diabetic_data.csv"))
        raw = decode(archive.read(name))
    cohort = select_cohort(validate(raw, ValidationParams()).encounters)
    readmitted = outcome(cohort)
    assert len(cohort) == 99_343
    assert auroc(readmitted, lace(cohort)) == pytest.approx(0.5785, abs=0.0005)
    assert auroc(readmitted, hospital(cohort)) == pytest.approx(0.6014, abs=0.0005)
