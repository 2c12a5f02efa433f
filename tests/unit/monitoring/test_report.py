import pytest

from factories import encounters
from health_predict.errors import DataError
from health_predict.params import DriftParams
from health_predict.reports.drift_page import html


def test_an_empty_side_cannot_be_drawn():
    table = encounters(20)
    with pytest.raises(DataError, match="20 reference and 0 current"):
        html(table, table.head(0), DriftParams())


@pytest.mark.slow
def test_the_report_is_one_page_that_names_the_fields_and_no_patient():
    before, after = encounters(400, seed=1), encounters(300, seed=2)
    page = html(before, after, DriftParams(report_rows=200)).decode()
    assert page.lstrip().lower().startswith(("<!doctype html", "<html"))
    assert "number_inpatient" in page
    assert "patient_nbr" not in page
    assert not any(str(number) in page for number in before["patient_nbr"])
