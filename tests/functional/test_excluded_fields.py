"""`train --exclude`: fields that a model may not read, from its training to the service, and to its successors."""

import json

import polars as pl
import pytest

import factories
from health_predict.bundle.explain import Explainer
from health_predict.bundle.model import Bundle
from health_predict.data.schema import CLINICAL
from stores import Place

LEFT_OUT = ["payer_code", "race"]


@pytest.fixture(scope="module")
def encounters() -> pl.DataFrame:
    return factories.encounters(50, seed=77)


def trained(place: Place, *options: str) -> Bundle:
    code, out, err = place.run("train", "--families", "lightgbm", "--trials", "1", "--json", *options)
    assert code == 0, err
    return place.registry.bundle(json.loads(out.splitlines()[-1])["winner"])


def test_a_model_and_its_successors_do_not_read_what_was_excluded(store, encounters):
    bundle = trained(store, "--exclude", " race, payer-code")
    assert bundle.manifest.excluded == LEFT_OUT
    assert not {*bundle.manifest.fields} & {*LEFT_OUT}
    mixed = encounters.with_columns(pl.col(LEFT_OUT).shuffle(seed=3))
    assert bundle.predict_proba(mixed).tolist() == bundle.predict_proba(encounters).tolist()
    row = encounters.select(field.name for field in CLINICAL).row(0, named=True)
    assert bundle.score({**row, "race": "Martian", "payer_code": None}) == bundle.score(row)
    told = [name for one in Explainer(bundle).explain(row).contributions for name in one.fields]
    assert sorted(told) == sorted(bundle.manifest.fields)

    assert store.run("evaluate")[0] == 0
    assert store.run("promote")[0] == 0
    successor = trained(store, "--seed", "5")
    assert successor.manifest.excluded == LEFT_OUT
    again = trained(store, "--seed", "5", "--exclude", "none")
    assert again.manifest.excluded == []
    assert {*LEFT_OUT} < {*again.manifest.fields}


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("colour", "colour is no field that a model could read"),
        ("encounter_id", "encounter_id is no field that a model could read"),
        (",", "nothing is no field"),
        (",".join(field.name for field in CLINICAL), "learns nothing"),
        (",".join(field.name for field in CLINICAL if field.name != "race"), "learns nothing"),
        (",".join(field.name for field in CLINICAL if not field.is_quantity), "learns nothing"),
    ],
    ids=["unknown", "identifier", "empty", "all", "all but a category", "all but quantities"],
)
def test_an_exclusion_that_cannot_be_is_told(store, health_predict, said, told):
    result = health_predict(store.root, "train", "--exclude", said)
    assert result.code == 2
    assert told in " ".join(result.err.replace("│", " ").split())
