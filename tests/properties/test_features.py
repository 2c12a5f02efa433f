"""An encounter's features are its own: alone, in a table, in a row of the service, they are the same numbers."""

from functools import cache

import numpy as np
import polars as pl
from hypothesis import example, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from scipy import sparse

import factories
from health_predict.data.field import Field
from health_predict.data.schema import CLINICAL
from health_predict.data.validation import DTYPES
from health_predict.features.encoder import Encoder
from health_predict.features.encounters import columns, engineer
from health_predict.features.preprocessor import Preprocessor
from health_predict.params import PreprocessorParams

SETTINGS = settings(max_examples=40, deadline=None)
TRAIN = factories.encounters(1_000, seed=21)
SCHEMA = {field.name: DTYPES[field.name] for field in CLINICAL}


ICD10 = st.sampled_from(["I5023", "E1165", "e87.1", "V4352XA", "E871", "E878", "V45"])
BESIDE_ICD10 = TRAIN.head(1).select(*SCHEMA).with_columns(diag_1=pl.lit("I5023"), diag_2=pl.lit("V45"))


def values(field: Field) -> st.SearchStrategy[str | int | None]:
    """Known codes mostly; also missing ones, codes that nobody knows, and counts far out of range."""
    if field.is_whole_number:
        return st.one_of(st.none(), st.sampled_from([*field.codes, 0]), st.integers(-5, 30_000))
    if field.kind == "diagnosis":
        known = st.sampled_from(TRAIN[field.name].unique().sort().to_list())
        return st.one_of(
            known, st.from_regex(r"[VE]?[0-9]{1,3}(\.[0-9]{1,2})?", fullmatch=True), ICD10, st.text(max_size=5)
        )
    return st.one_of(st.none(), st.sampled_from([*field.codes, "Zzz"]))


encounters = st.lists(
    st.fixed_dictionaries({field.name: values(field) for field in CLINICAL}), min_size=1, max_size=6
).map(lambda rows: pl.DataFrame(rows, schema=SCHEMA))


@cache
def fitted(encoding, exclude) -> tuple[Preprocessor, Encoder]:
    preprocessor = Preprocessor(encoding, PreprocessorParams(exclude=exclude))
    preprocessor.fit_transform(preprocessor.engineer(TRAIN), (TRAIN["readmitted"] == "<30").to_numpy())
    return preprocessor, preprocessor.to_encoder()


@SETTINGS
@given(table=encounters)
def test_a_row_has_the_same_features_alone_or_in_a_table(table):
    together = engineer(table)
    crowd = engineer(pl.concat([TRAIN.head(20).select(*SCHEMA), table]))
    alone = pl.concat(engineer(table[row]) for row in range(table.height))
    assert_frame_equal(alone, together, check_exact=True)
    assert_frame_equal(crowd.tail(table.height), together, check_exact=True)


@SETTINGS
@given(
    table=encounters,
    encoding=st.sampled_from(["target", "one_hot"]),
    exclude=st.sampled_from([(), ("diag_1",), ("diag_2", "diag_3", "time_in_hospital")]),
)
@example(table=BESIDE_ICD10, encoding="target", exclude=("diag_1",))
def test_training_tables_and_the_service_see_the_same_vector(table, encoding, exclude):
    preprocessor, encoder = fitted(encoding, exclude)
    expected = preprocessor.transform(preprocessor.engineer(table))
    expected = expected.toarray() if sparse.issparse(expected) else expected
    by_table = encoder.encode_table(columns(table, encoder))
    by_row = factories.vectors(encoder, table.to_dicts())
    assert np.array_equal(by_row, by_table)
    np.testing.assert_allclose(by_table, expected, rtol=1e-6, atol=1e-6)
