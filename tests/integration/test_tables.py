import io

import polars as pl
import pytest

import factories
from health_predict.errors import DataError
from health_predict.store import layout
from health_predict.store.tables import (
    keep_table,
    kept_table,
    read_json,
    read_table,
    table_bytes,
    write_json,
    write_table,
)

TABLE = factories.encounters(300)


def _foreign(table: pl.DataFrame) -> bytes:
    """A Parquet file that `write_table` did not write."""
    file = io.BytesIO()
    table.write_parquet(file)
    return file.getvalue()


def test_a_table_comes_back_as_it_was_and_the_same_table_gives_the_same_bytes(storage):
    write_table(storage, "a.parquet", TABLE)
    write_table(storage, "b.parquet", factories.encounters(300))
    assert read_table(storage, "a.parquet").equals(TABLE)
    assert storage.read("a.parquet") == storage.read("b.parquet")


def test_a_table_from_elsewhere_is_read_when_it_fits(storage):
    storage.write("a.parquet", _foreign(TABLE))
    assert read_table(storage, "a.parquet").equals(TABLE)


MISFITS = [
    (TABLE.drop("race"), "race is missing"),
    (TABLE.with_columns(note=pl.lit("x")), "'note' is unknown"),
    (TABLE.rename({"age": "Age"}), "age is missing; 'Age' is unknown"),
    (TABLE.with_columns(pl.col("time_in_hospital").cast(pl.Int64)), "time_in_hospital is Int64, not Int32"),
    (TABLE.select(reversed(TABLE.columns)), "in another order"),
    (TABLE.with_columns(gender=pl.lit("secret")), "gender is not one of Female, Male, Unknown/Invalid in 300 rows"),
    (
        TABLE.with_columns(number_inpatient=pl.lit(-7, pl.Int32)),
        "number_inpatient is not a whole number from 0 to 200 in 300 rows",
    ),
    (TABLE.with_columns(insulin=pl.lit(None, pl.String)), "insulin is missing in 300 rows"),
    (pl.concat([TABLE, TABLE[:1]]), "encounter_id is in an earlier line too in 1 rows"),
]


@pytest.mark.parametrize(("table", "says"), MISFITS, ids=[says for _, says in MISFITS])
def test_a_table_that_does_not_fit_is_refused_with_columns_and_counts(tmp_path, table, says):
    from health_predict.store.storage import open_storage

    storage = open_storage(str(tmp_path))
    with pytest.raises(DataError, match=says) as caught:
        write_table(storage, "a.parquet", table)
    assert "secret" not in str(caught.value)
    assert storage.list() == []
    storage.write("a.parquet", _foreign(table))
    with pytest.raises(DataError, match=says):
        read_table(storage, "a.parquet")


@pytest.mark.parametrize("damage", [lambda content: content[:-100], lambda content: b"", lambda content: b"a,b\n1,2\n"])
def test_a_damaged_file_is_named(storage, damage):
    write_table(storage, "a.parquet", TABLE)
    storage.write("a.parquet", damage(storage.read("a.parquet")))
    with pytest.raises(DataError, match=r"a\.parquet is not a readable Parquet file"):
        read_table(storage, "a.parquet")


def test_json_is_written_the_same_way_whatever_the_order_of_its_keys(storage):
    write_json(storage, "a.json", {"b": [1.5, None], "a": "é"})
    write_json(storage, "b.json", {"a": "é", "b": [1.5, None]})
    assert storage.read("a.json") == storage.read("b.json")
    assert storage.read("a.json").endswith(b"}\n")
    assert read_json(storage, "a.json") == {"a": "é", "b": [1.5, None]}


def test_a_file_that_is_not_json_is_named(storage):
    storage.write("a.json", b"{")
    with pytest.raises(DataError, match=r"a\.json is not JSON"):
        read_json(storage, "a.json")


def test_a_kept_table_that_was_damaged_or_lost_is_made_whole_by_keeping_it_again(storage):
    content = table_bytes(factories.encounters(5, seed=1), "table")
    digest = keep_table(storage, content)
    storage.write(layout.table(digest), content[:-1])
    with pytest.raises(DataError, match="was altered"):
        kept_table(storage, digest)
    keep_table(storage, content)
    assert kept_table(storage, digest) == content
    storage.delete(layout.table(digest))
    keep_table(storage, content)
    assert kept_table(storage, digest) == content
