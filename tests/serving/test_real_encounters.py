"""The running API against the bundle, on encounters of the published data where there is a copy of it."""

import os

import numpy as np
import pytest

from health_predict.adapters.download import extract_csv, read_source
from health_predict.data.cohort import select_cohort
from health_predict.data.decode import decode
from health_predict.data.schema import CLINICAL
from health_predict.data.validation import validate
from health_predict.params import ValidationParams

RAW_DATA = os.environ.get("HEALTH_PREDICT_RAW_DATA")
ENCOUNTERS = 1_000


@pytest.mark.skipif(not RAW_DATA, reason="HEALTH_PREDICT_RAW_DATA names no copy of the dataset")
def test_the_api_answers_what_the_bundle_answers_for_real_encounters(client, bundle):
    cohort = select_cohort(validate(decode(extract_csv(read_source(RAW_DATA))), ValidationParams()).encounters)
    encounters = cohort.sample(ENCOUNTERS, seed=1)
    names = {field.name: field.raw_name for field in CLINICAL}
    rows = encounters.select(list(names)).rename(names).to_dicts()
    responses = [client.post("/predict", json=row) for row in rows]
    assert {response.status_code for response in responses} == {200}
    answered = np.array([response.json()["probability_score"] for response in responses])
    largest = np.abs(answered - bundle.predict_proba(encounters)).max()
    assert largest <= 1e-9
