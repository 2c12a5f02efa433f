"""The reference patient has the median risk, and could be a patient; he is none."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

import factories
from health_predict.bundle.explain import Explainer
from health_predict.bundle.export import Provenance, export
from health_predict.bundle.model import Bundle, load_bundle
from health_predict.bundle.profile import read_reference
from health_predict.bundle.reference_encounter import reference_encounter, typical_encounter
from health_predict.data.cohort import label, select_cohort
from health_predict.data.schema import DRUGS, FIELD
from health_predict.data.splits import split
from health_predict.params import BundleParams, Params, PreprocessorParams, SearchParams, SplitParams
from health_predict.training.candidates import CANDIDATES
from health_predict.training.fit import fit, prepare

PROVENANCE = Provenance("run", "initial", "lt30", (), synthetic=True, simulation=None, git_revision="unknown", seed=1)
DRUG_FIELDS = [drug.replace("-", "_") for drug in DRUGS]
KEPT = {"race", "gender", *(name for name, field in FIELD.items() if field.administrative)}


@pytest.fixture(scope="module", params=[(family, seed) for family in CANDIDATES for seed in (51, 52)])
def folder(request, tmp_path_factory) -> Path:
    family, seed = request.param
    parts = split(select_cohort(factories.encounters(2_500, seed)), SplitParams(initial_share=0.95))
    train, validation = label(parts.train, "lt30"), label(parts.validation, "lt30")
    prepared = prepare(CANDIDATES[family].encoding, train, validation, PreprocessorParams())
    fitted = fit(
        family, CANDIDATES[family].default(len(train.outcomes)), prepared, SearchParams(), BundleParams.capacity
    )
    folder: Path = tmp_path_factory.mktemp("bundle") / "bundle"
    export(folder, fitted, train, validation, {}, PROVENANCE, Params())
    return folder


@pytest.fixture(scope="module")
def bundle(folder) -> Bundle:
    return load_bundle(folder)


def test_the_risk_is_within_a_percentile_of_the_median(bundle):
    found = bundle.manifest.reference_encounter
    low, high = (bundle.manifest.percentiles[percentile] for percentile in (49, 51))
    assert low <= bundle.predict_one(found.values) <= high
    assert 0 < len(found.changed) <= 4  # three fields at most, and what the drugs decide


def test_only_fields_that_the_model_reads_have_values_and_race_sex_and_administration_are_typical(bundle):
    found = bundle.manifest.reference_encounter
    assert set(found.values) == set(bundle.encoder.fields)
    assert not KEPT & set(found.changed)


def test_the_values_agree_with_each_other(bundle):
    values = bundle.manifest.reference_encounter.values
    doses = [values[name] for name in DRUG_FIELDS if values[name] != "No"]
    assert values["diabetesMed"] == ("Yes" if doses else "No")
    assert values["change"] == ("Ch" if len(doses) > 1 or {"Up", "Down"} & set(doses) else "No")
    assert all(value is None or FIELD[name].fits(value) for name, value in values.items())


def test_it_is_chosen_again_from_the_same_counts(folder, bundle):
    again = reference_encounter(bundle, read_reference(folder).fields, BundleParams())
    assert again == bundle.manifest.reference_encounter


def test_a_higher_median_has_another_patient(folder, bundle):
    counts, percentiles = read_reference(folder).fields, bundle.manifest.percentiles
    raised = [*percentiles[15:], *percentiles[-1:] * 15]
    other = Bundle(msgspec.structs.replace(bundle.manifest, percentiles=raised), bundle.encoder, bundle.session, "")
    found = reference_encounter(other, counts, BundleParams())
    assert percentiles[64] <= bundle.predict_one(found.values) <= percentiles[66]


def test_without_a_change_the_nearest_is_the_typical_encounter(folder, bundle):
    found = reference_encounter(bundle, read_reference(folder).fields, BundleParams(reference_changes=0))
    assert found.changed == []


def test_contributions_add_up_to_the_difference_from_the_median_risk(bundle):
    explainer = Explainer(bundle)
    for encounter in select_cohort(factories.encounters(20, seed=72)).to_dicts():
        explained = explainer.explain(encounter)
        total = explained.reference_probability + sum(c.amount for c in explained.contributions)
        assert total == pytest.approx(explained.probability, abs=1e-6)
    assert np.isclose(explained.reference_probability, bundle.predict_one(bundle.manifest.reference_encounter.values))


def test_the_typical_encounter_is_made_of_medians_and_most_frequent_values():
    counts = {
        "time_in_hospital": {1: 2, 3: 2, 14: 1},
        "race": {None: 3, "Asian": 2},
        "admission_type_id": {2: 1},
    }
    assert typical_encounter(counts) == {"time_in_hospital": 3, "race": None, "admission_type_id": 2}


@pytest.mark.parametrize(
    ("treated", "expected"),
    [
        (8, {"insulin": "Steady", "metformin": "No", "change": "No", "diabetesMed": "Yes"}),
        (2, {"insulin": "No", "metformin": "No", "change": "No", "diabetesMed": "No"}),
    ],
)
def test_the_typical_encounter_has_a_drug_where_most_encounters_have_one(treated, expected):
    counts = {
        "insulin": {"No": 6, "Steady": 4},
        "metformin": {"No": 7, "Up": 3},
        "change": {"No": 7, "Ch": 3},
        "diabetesMed": {"No": 10 - treated, "Yes": treated},
    }
    assert typical_encounter(counts) == expected
