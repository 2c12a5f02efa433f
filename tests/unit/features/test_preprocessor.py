import numpy as np
import polars as pl
import pytest
from scipy import sparse

import factories
from health_predict.data.schema import IDENTIFIERS
from health_predict.data.validation import DTYPES
from health_predict.features.encounters import ALL, columns, engineer, without
from health_predict.features.preprocessor import Preprocessor
from health_predict.params import PreprocessorParams

TRAIN = factories.encounters(1_500, seed=11)
LATER = factories.encounters(400, seed=12)
Y = (TRAIN["readmitted"] == "<30").to_numpy()
ENCODINGS = ("target", "one_hot")


def fitted(encoding, table: pl.DataFrame = TRAIN) -> Preprocessor:
    preprocessor = Preprocessor(encoding)
    preprocessor.fit_transform(engineer(table), Y)
    return preprocessor


def dense(matrix) -> np.ndarray:
    return matrix.toarray() if sparse.issparse(matrix) else matrix


def odd(table: pl.DataFrame) -> pl.DataFrame:
    """Unknown codes, missing values and counts out of range, spread over the rows."""

    def every(step: int, name: str, value: str | int | None) -> pl.Expr:
        unchanged = pl.col(name)
        replaced = pl.lit(value, dtype=DTYPES[name])
        return pl.when(pl.int_range(pl.len()) % step == 0).then(replaced).otherwise(unchanged).alias(name)

    return table.with_columns(
        every(3, "race", "Martian"),
        every(4, "A1Cresult", None),
        every(5, "age", "[900-910)"),
        every(7, "payer_code", "QQ"),
        every(2, "medical_specialty", "Alchemy"),
        every(3, "discharge_disposition_id", 999),
        every(5, "admission_type_id", None),
        every(3, "diag_1", "junk"),
        every(4, "diag_2", None),
        every(5, "diag_3", "250.999"),
        every(2, "number_inpatient", 30_000),
        every(3, "time_in_hospital", 0),
        every(7, "num_medications", None),
        every(11, "insulin", "Sideways"),
    )


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("table", [TRAIN, LATER, odd(LATER)], ids=["training", "later", "odd"])
def test_rows_tables_and_the_fitted_object_give_the_same_matrix(encoding, table):
    preprocessor = fitted(encoding)
    encoder = preprocessor.to_encoder()
    expected = dense(preprocessor.transform(engineer(table)))
    by_table = encoder.encode_table(columns(table, encoder))
    by_row = factories.vectors(encoder, table.to_dicts())
    assert by_table.shape == (table.height, len(preprocessor.feature_names))
    assert np.array_equal(by_row, by_table)
    np.testing.assert_allclose(by_table, expected, rtol=0, atol=1e-6)


def test_trees_get_exactly_the_numbers_they_were_trained_on():
    preprocessor = fitted("target")
    encoder = preprocessor.to_encoder()
    assert np.array_equal(encoder.encode_table(columns(LATER, encoder)), preprocessor.transform(engineer(LATER)))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_not_measured_is_a_value_in_training_and_in_the_service_alike(encoding):
    preprocessor = fitted(encoding)
    encoder = preprocessor.to_encoder()
    row = TRAIN.head(1)
    found = {}
    for value in ("None", ">8", None):
        changed = row.with_columns(pl.lit(value, dtype=pl.String).alias("A1Cresult"))
        by_training = dense(preprocessor.transform(engineer(changed)))
        by_service = factories.vectors(encoder, changed.to_dicts())
        np.testing.assert_allclose(by_service, by_training, rtol=0, atol=1e-6)
        found[value] = by_service.tobytes()
    assert len(set(found.values())) == 3
    if encoding == "one_hot":
        assert "A1Cresult=None" in preprocessor.feature_names


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_identifiers_and_counts_of_a_patients_encounters_are_not_in_the_matrix(encoding):
    preprocessor = Preprocessor(encoding)
    matrix = preprocessor.fit_transform(engineer(TRAIN), Y)
    names = {name.partition("=")[0] for name in preprocessor.feature_names}
    assert names == {*ALL.number_names, *ALL.category_names, *ALL.joint_names}
    assert not names & {*IDENTIFIERS, "readmitted"}
    mixed = TRAIN.with_columns(pl.col(name).shuffle(seed=3) for name in IDENTIFIERS)
    again = Preprocessor(encoding).fit_transform(engineer(mixed), Y)
    assert np.array_equal(dense(again), dense(matrix))


@pytest.mark.parametrize(("encoding", "kind"), [("target", np.ndarray), ("one_hot", sparse.csr_matrix)])
def test_training_has_one_row_for_each_encounter_in_order(encoding, kind):
    preprocessor = Preprocessor(encoding)
    matrix = preprocessor.fit_transform(engineer(TRAIN), Y)
    assert isinstance(matrix, kind)
    assert matrix.dtype == np.float32
    assert matrix.shape == (TRAIN.height, len(preprocessor.feature_names))
    column = preprocessor.feature_names.index("number_inpatient")
    np.testing.assert_array_equal(
        dense(matrix)[:, column].argsort(kind="stable"), TRAIN["number_inpatient"].to_numpy().argsort(kind="stable")
    )


def test_a_training_row_is_not_encoded_by_its_own_outcome():
    """Cross-fitting: with a label nobody else has, the encoded rate is the prior, whatever the row's outcome."""
    lonely = engineer(TRAIN).with_columns(
        pl.when(pl.int_range(pl.len()) == 0).then(pl.lit("lonely")).otherwise(pl.col("race")).alias("race")
    )
    column = [*ALL.number_names, *ALL.category_names].index("race")
    rates = []
    for outcome in (False, True):
        y = Y.copy()
        y[0] = outcome
        rates.append(Preprocessor("target").fit_transform(lonely, y)[0, column])
    assert rates == pytest.approx([Y.mean()] * 2, abs=0.01)


def test_a_category_that_training_never_saw_counts_as_the_average_or_as_rare():
    target, one_hot = fitted("target"), fitted("one_hot")
    assert target.encoded("race")[None]["race"] == pytest.approx(Y.mean(), abs=1e-6)
    assert one_hot.encoded("medical_specialty")[None] == {"medical_specialty=": 1.0}
    assert one_hot.encoded("gender")[None] == {}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("text", ["rare", "missing", "unknown", "a=b", "home and away"])
def test_a_text_that_looks_like_a_name_of_ours_is_encoded_alike_everywhere(encoding, text):
    table = TRAIN.with_columns(
        pl.when(pl.int_range(pl.len()) % 4 == 0)
        .then(pl.lit(text))
        .otherwise("medical_specialty")
        .alias("medical_specialty")
    )
    preprocessor = Preprocessor(encoding)
    preprocessor.fit_transform(engineer(table), Y)
    encoder = preprocessor.to_encoder()
    assert len(set(preprocessor.feature_names)) == len(preprocessor.feature_names)
    expected = dense(preprocessor.transform(engineer(table)))
    np.testing.assert_allclose(encoder.encode_table(columns(table, encoder)), expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(factories.vectors(encoder, table.to_dicts()), expected, rtol=0, atol=1e-6)


def test_rates_stay_apart_in_single_precision():
    rates = fitted("target").transform(engineer(LATER))[:, len(ALL.number_names) :]
    for column in rates.T:
        gaps = np.diff(np.unique(column.astype(np.float64)))
        assert not gaps.size or gaps.min() > 5e-7


def test_linear_models_get_standardised_numbers_and_indicators():
    matrix = dense(Preprocessor("one_hot").fit_transform(engineer(TRAIN), Y))
    numbers, indicators = matrix[:, : len(ALL.number_names)], matrix[:, len(ALL.number_names) :]
    np.testing.assert_allclose(numbers.mean(axis=0), 0, atol=1e-4)
    assert set(np.unique(indicators)) == {0.0, 1.0}
    assert (indicators.sum(axis=1) == len(ALL.category_names) + len(ALL.joint_names)).all()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_transforming_leaves_the_fitted_object_as_it_was(encoding):
    preprocessor = fitted(encoding)
    before = preprocessor.to_encoder().to_json()
    preprocessor.transform(engineer(odd(LATER)))
    assert preprocessor.to_encoder().to_json() == before


def test_fewer_rows_per_column_are_a_parameter():
    wide = Preprocessor("one_hot", PreprocessorParams(min_frequency=2))
    wide.fit_transform(engineer(TRAIN), Y)
    assert len(wide.feature_names) > len(fitted("one_hot").feature_names)


def test_a_pair_of_labels_has_its_own_rate_and_a_pair_that_training_never_saw_the_overall_one():
    joint = ALL.joints[0]
    features = engineer(TRAIN).with_columns(
        pl.when(pl.int_range(pl.len()) % 2 == 0).then(pl.lit("even")).otherwise(pl.lit("odd")).alias(joint.left),
        pl.when(pl.int_range(pl.len()) % 3 == 0).then(pl.lit("third")).otherwise(pl.lit("other")).alias(joint.right),
    )
    y = (np.arange(TRAIN.height) % 6) == 0  # the outcome is the pair even and third: neither label alone says it
    preprocessor = Preprocessor("target")
    preprocessor.fit_transform(features, y)
    column = preprocessor.feature_names.index(joint.name)
    rates = preprocessor.transform(features)[:, column]
    assert rates[y].min() > 0.4
    assert rates[~y].max() < 0.1
    unseen = features.with_columns(pl.lit("never seen").alias(joint.right))
    assert preprocessor.transform(unseen)[:, column] == pytest.approx(y.mean(), abs=1e-6)
    found, otherwise = preprocessor.pairs(joint)
    assert found["even"]["third"] == (joint.name, pytest.approx(rates[0], abs=1e-6))
    assert otherwise == (joint.name, pytest.approx(y.mean(), abs=1e-6))


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("excluded", [("race",), ("payer_code", "gender"), ("diag_1",), ("insulin", "age", "weight")])
def test_an_excluded_field_is_read_by_nothing(encoding, excluded):
    preprocessor = Preprocessor(encoding, PreprocessorParams(exclude=excluded))
    preprocessor.fit_transform(preprocessor.engineer(TRAIN), Y)
    encoder = preprocessor.to_encoder()
    assert not set(encoder.fields) & set(excluded)
    mixed = LATER.with_columns(LATER[name].shuffle(seed=3) for name in excluded)
    expected = preprocessor.transform(preprocessor.engineer(LATER))
    np.testing.assert_array_equal(dense(preprocessor.transform(preprocessor.engineer(mixed))), dense(expected))
    by_service = factories.vectors(
        encoder, [{k: v for k, v in row.items() if k not in excluded} for row in LATER.to_dicts()]
    )
    np.testing.assert_allclose(by_service, dense(expected), rtol=0, atol=1e-6)


def test_every_field_that_a_model_reads_can_be_left_out():
    for name in fitted("target").to_encoder().fields:
        features = without((name,))
        assert name not in features.coded_fields
        assert engineer(LATER.head(5).drop(name), features).height == 5
    assert without(()) == ALL
