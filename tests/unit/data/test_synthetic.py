import pytest

from health_predict.data.cohort import outcome, select_cohort
from health_predict.data.validation import DTYPES
from health_predict.simulation.synthetic import FIRST_PATIENT, generate

TABLE = generate(20_000, seed=1)


def test_same_arguments_give_the_same_encounters():
    assert TABLE.equals(generate(20_000, seed=1))
    assert not TABLE.equals(generate(20_000, seed=2))


def test_invented_encounters_have_the_dataset_shape():
    assert dict(TABLE.schema) == DTYPES
    assert TABLE["encounter_id"].is_sorted()
    assert TABLE["encounter_id"].is_unique().all()
    assert 1 - TABLE["patient_nbr"].n_unique() / TABLE.height == pytest.approx(0.31, abs=0.02)
    assert (TABLE["A1Cresult"] == "None").mean() == pytest.approx(0.83, abs=0.02)
    cohort = select_cohort(TABLE)
    assert outcome(cohort, "lt30").mean() == pytest.approx(0.115, abs=0.01)
    assert outcome(cohort, "any").mean() == pytest.approx(0.47, abs=0.01)


def test_invented_patients_cannot_be_taken_for_real_ones():
    assert TABLE["patient_nbr"].min() >= FIRST_PATIENT


def test_readmissions_can_be_learned_a_little():
    cohort = select_cohort(TABLE)
    readmitted = outcome(cohort)
    stays = cohort["number_inpatient"].to_numpy()
    assert readmitted[stays >= 3].mean() > 1.5 * readmitted[stays == 0].mean()


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_any_number_of_rows_can_be_asked_for(rows):
    assert generate(rows, seed=1).height == rows
