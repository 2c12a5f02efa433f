import numpy as np
import pytest

import factories
from health_predict.features.encoder import Codes, CodeTable, Contribution, CountTable, Encoder
from health_predict.features.encounters import columns, engineer
from health_predict.features.preprocessor import Preprocessor
from health_predict.features.row_encoder import RowEncoder

NOTHING = Contribution()
# Outputs: visits, smoker's sum, flag, visits per day, total; after them a hidden slot, the days.
ENCODER = Encoder(
    outputs=("visits", "sum", "flag", "visits_per_day", "total"),
    slots=6,
    counts={"visits": CountTable(10, (0,)), "days": CountTable(14, (5,))},
    codes={
        "colour": CodeTable(
            "text",
            {"red": Contribution(((1, 0.5),), ((2, 1.0),)), "None": Contribution(((1, 0.25),))},
            missing=Contribution(((1, -1.0),)),
            unknown=Contribution(((1, 9.0),)),
        ),
        "diagnosis": CodeTable("icd9", {"250.10": Contribution((), ((2, 1.0),))}, NOTHING, NOTHING),
        "kind": CodeTable("integer", {3: Contribution(((1, 2.0),))}, NOTHING, NOTHING),
    },
    combinations=((4, (0, 1)),),
    ratios=((3, 0, 5),),
)


def encode(**encounter) -> list[float]:
    return list(RowEncoder(ENCODER).encode(encounter)[0])


def test_sums_maxima_combinations_and_ratios():
    assert encode(visits=4, days=2, colour="red", diagnosis="250.1", kind=3) == [4, 2.5, 1, 2, 6.5]
    assert encode(visits=4, colour="red") == [4, 0.5 - 0.0, 1, 4, 4.5]


def test_missing_unknown_and_the_value_none_are_three_things():
    assert [encode(colour=value)[1] for value in (None, "blue", "None")] == [-1.0, 9.0, 0.25]
    assert encode()[1] == -1.0


def test_counts_stay_in_their_range():
    assert [encode(visits=value)[0] for value in (None, -3, 0, 10, 11, 10**9)] == [0, 0, 0, 10, 10, 10]


def test_fields_that_cannot_be_understood_are_named_and_missing_ones_are_not_among_them():
    encounter = {"visits": 1, "colour": "blue", "diagnosis": None, "kind": 77}
    row_encoder = RowEncoder(ENCODER)
    assert row_encoder.encode(encounter)[1] == row_encoder.encode(encounter)[1]
    assert row_encoder.encode({**encounter, "colour": "red", "kind": 3})[1] == []
    assert row_encoder.encode(encounter)[1] == ENCODER.unknown_fields(encounter) == ["colour", "kind"]
    assert ENCODER.missing_fields(encounter) == ["days", "diagnosis"]


def test_an_encounter_that_cannot_be_encoded_leaves_nothing_to_the_next():
    row_encoder = RowEncoder(ENCODER)
    with pytest.raises(TypeError):
        row_encoder.encode({"colour": "blue", "kind": []})
    assert row_encoder.encode({"colour": "red", "kind": 3})[1] == []


def test_a_table_encodes_as_its_rows_do():
    rows = [
        {"visits": 4, "days": 2, "colour": "red", "diagnosis": "250.1", "kind": 3},
        {"visits": 99, "days": None, "colour": None, "diagnosis": "junk", "kind": 4},
        {"visits": -5, "days": 3, "colour": "blue", "diagnosis": None, "kind": None},
    ]
    table = {
        "visits": np.array([4, 99, -5]),
        "days": np.array([2, 0, 3]),
        "colour": Codes(np.array([0, 1, 2]), ["red", None, "blue"]),
        "diagnosis": Codes(np.array([0, 1, 2]), ["250.1", "junk", None]),
        "kind": Codes(np.array([1, 0, 2]), [4, 3, None]),
    }
    assert np.array_equal(ENCODER.encode_table(table), factories.vectors(ENCODER, rows))


def test_a_code_column_that_is_no_dictionary_is_refused_by_name():
    table = {"visits": np.array([1]), "days": np.array([1]), "colour": np.array([1])}
    with pytest.raises(TypeError, match="column colour"):
        ENCODER.encode_table(table)


@pytest.mark.parametrize("encoding", ["target", "one_hot"])
def test_an_encoder_survives_its_file(encoding):
    table = factories.encounters(300)
    preprocessor = Preprocessor(encoding)
    preprocessor.fit_transform(engineer(table), (table["readmitted"] == "<30").to_numpy())
    encoder = preprocessor.to_encoder()
    again = Encoder.from_json(encoder.to_json())
    assert again.to_json() == encoder.to_json()
    assert again.outputs == encoder.outputs
    expected = encoder.encode_table(columns(table, encoder))
    assert np.array_equal(again.encode_table(columns(table, again)), expected)
    assert expected.dtype == np.float32
    assert expected.flags.c_contiguous
