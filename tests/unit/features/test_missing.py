import pytest

from health_predict.features.missing import missing_far_more_often, missing_limits
from health_predict.params import MissingParams

PARAMS = MissingParams(max_rise=0.05, max_chance=0.001, least_share=0.0002)
REFERENCE = {"diag_1": 0.0002, "diag_3": 0.014, "payer_code": 0.4}


def test_the_limit_is_the_share_in_training_and_the_rise_that_is_allowed():
    assert missing_limits(REFERENCE, PARAMS) == pytest.approx({"diag_1": 0.0502, "diag_3": 0.064, "payer_code": 0.45})


@pytest.mark.parametrize(
    ("field", "missing", "encounters", "warned"),
    [
        ("diag_1", 1, 1, True),  # one in five thousand lacks it
        ("diag_3", 1, 1, False),  # one in seventy does
        ("diag_3", 5, 5, True),
        ("payer_code", 5, 5, False),
        ("payer_code", 1_000, 1_000, True),
        ("payer_code", 460, 1_000, True),
        ("payer_code", 440, 1_000, False),
        ("payer_code", 47, 100, False),  # above the limit, not beyond chance
        ("diag_1", 49, 1_000, False),  # far beyond chance, below the limit
        ("diag_1", 0, 0, False),
        ("not a field", 9, 9, False),
    ],
)
def test_a_field_is_named_when_its_share_is_above_the_limit_and_beyond_chance(field, missing, encounters, warned):
    assert missing_far_more_often({field: missing}, encounters, REFERENCE, PARAMS) == [field] * warned


def test_a_field_never_missing_in_training_may_be_missing_in_one_of_many():
    assert missing_far_more_often({"age": 1}, 100, {"age": 0.0}, PARAMS) == []
    assert missing_far_more_often({"age": 100}, 100, {"age": 0.0}, PARAMS) == ["age"]
