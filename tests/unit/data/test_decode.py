import pytest

import factories
from health_predict.data.decode import decode, encode
from health_predict.data.schema import FIELDS, RAW_COLUMNS
from health_predict.data.validation import validate
from health_predict.errors import DataError
from health_predict.params import ValidationParams

CSV = factories.raw_csv(factories.encounters(20))


def test_decode_keeps_every_value_as_a_string_under_the_field_name():
    raw = decode(CSV)
    assert raw.columns == [field.name for field in FIELDS]
    assert raw.height == 20
    assert set(raw.dtypes) == {raw["age"].dtype}
    assert "?" in raw["weight"].to_list()
    assert "None" in raw["A1Cresult"].to_list()


def test_a_table_survives_encode_decode_and_validate():
    table = factories.encounters(500)
    assert validate(decode(encode(table)), ValidationParams()).encounters.equals(table)


@pytest.mark.parametrize(
    "same",
    [
        CSV.replace(b"\n", b"\r\n"),
        b"\xef\xbb\xbf" + CSV,
        CSV + b"\n\n",
        CSV.rstrip(b"\n"),
        CSV.replace(b"glyburide-metformin", b"glyburide_metformin"),
        CSV.replace(b"Caucasian", b'"Caucasian"'),
    ],
    ids=["crlf", "byte order mark", "blank lines at the end", "no last line end", "underscores", "quotes"],
)
def test_decode_reads_the_same_data_written_differently(same):
    assert decode(same).equals(decode(CSV))


def test_decode_takes_columns_in_any_order():
    header, *rows = CSV.decode().splitlines()
    turned = "\n".join(",".join(reversed(line.split(","))) for line in (header, *rows))
    assert decode(turned.encode()).equals(decode(CSV))


def _without_column(name: str) -> bytes:
    position = RAW_COLUMNS.index(name)
    lines = (line.split(",") for line in CSV.decode().splitlines())
    return "\n".join(",".join(line[:position] + line[position + 1 :]) for line in lines).encode()


def _with_line(number: int, change) -> bytes:
    lines = CSV.decode().splitlines()
    lines[number - 1] = change(lines[number - 1])
    return "\n".join(lines).encode()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty file"),
        (b"\n \n", "empty file"),
        (CSV.splitlines()[0] + b"\n", "no rows"),
        (_without_column("race"), "missing: race"),
        (CSV.replace(b"time_in_hospital", b"time_in_hosp"), r"'time_in_hosp' \(is it time_in_hospital\?\)"),
        (CSV.replace(b"A1Cresult", b"a1c_result"), r"'a1c_result' \(is it A1Cresult\?\)"),
        (CSV.replace(b"weight", b"race"), "repeated: race; missing: weight"),
        (_with_line(1, lambda line: line + ",note").replace(b"\n", b",\n"), "unknown: 'note'"),
        (CSV.split(b"\n", 1)[1], "names 0 of the 50 expected columns"),
        (CSV.replace(b",", b";"), "separated by semicolons"),
        (_with_line(7, lambda line: line[: len(line) // 2]), "line 7 has"),
        (CSV[: len(CSV) - 40], "line 21 has"),
        (_with_line(9, lambda line: line + ",No"), "line 9 has 51"),
        (_with_line(9, lambda line: line.rpartition(",")[0]), "line 9 has 49"),
        (_with_line(21, lambda line: line.rpartition(",")[0] + ","), "ends inside its last line"),
        (_with_line(6, lambda line: line + '"').replace(b"\n", b"\r\n"), "line 6 has a quote"),
        (_with_line(5, lambda line: ""), "line 5 is blank"),
        (_with_line(4, lambda line: line.replace("No", '"No', 1)), "CSV|fields"),
        (_with_line(3, lambda line: line).replace(b"Caucasian", b"Cauc\xe4sian", 1), "not UTF-8 text: line"),
        (CSV.decode().encode("utf-16"), "UTF-16"),
    ],
)
def test_decode_refuses_what_is_not_the_dataset_and_says_why(content, says):
    with pytest.raises(DataError, match=says):
        decode(content)


def test_a_refusal_repeats_no_value_of_a_patient():
    first = CSV.decode().splitlines()[1]
    for content in (CSV.split(b"\n", 1)[1], _with_line(2, lambda line: line + ",No")):
        with pytest.raises(DataError) as caught:
            decode(content)
        assert not any(value in str(caught.value).replace(",", " ").split() for value in first.split(",")[:2])
