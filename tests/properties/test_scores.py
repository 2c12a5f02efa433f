"""A row scores the same alone, in a table, through the API in any spelling and order, and through `predict`."""

import json
from pathlib import Path

import httpx
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from health_predict.bundle.model import Bundle, load_bundle
from health_predict.data.field import Field
from health_predict.data.schema import CLINICAL
from health_predict.data.validation import DTYPES
from health_predict.steps.model.predict import predict
from serving.support import export_bundle, running

CODES = st.sampled_from(
    ["428", "250.02", "V45", "E812", "41401", "250.1", "9999", "nonsense", "E878", "I5023", "E87.1"]
)


def values(field: Field) -> st.SearchStrategy[str | int | None]:
    """What the contract takes, known and unknown."""
    if field.kind == "count":
        drawn = st.integers(field.minimum, field.maximum)
    elif field.kind == "code":
        drawn = st.integers(0, 40)
    elif field.kind == "diagnosis":
        drawn = CODES
    else:
        drawn = st.sampled_from([*field.codes, *([] if field.closed else ["Invented"])])
    return drawn | st.none() if field.nullable else drawn


NAMES = [field.name for field in CLINICAL]
ENCOUNTERS = st.fixed_dictionaries({field.name: values(field) for field in CLINICAL})


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return export_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def bundle(folder) -> Bundle:
    return load_bundle(folder)


@pytest.fixture(scope="module")
def client(folder, tmp_path_factory):
    with running(folder, tmp_path_factory.mktemp("worker")) as worker:
        worker.wait_for_status("ok")
        with httpx.Client(base_url=worker.url) as opened:
            yield opened


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    encounters=st.lists(ENCOUNTERS, min_size=1, max_size=5),
    order=st.permutations(NAMES),
    hyphens=st.sets(st.sampled_from(NAMES)),
)
def test_a_row_scores_the_same_however_it_is_asked(bundle, client, tmp_path_factory, encounters, order, hyphens):
    table = pl.DataFrame(encounters, schema={field.name: DTYPES[field.name] for field in CLINICAL})
    expected = [bundle.predict_one(encounter) for encounter in encounters]
    assert bundle.predict_proba(table).tolist() == expected
    batch = client.post("/predict/batch", json=encounters).json()["predictions"]
    assert [answer["probability_score"] for answer in batch] == expected
    members = {name.replace("_", "-") if name in hyphens else name: encounters[0][name] for name in order}
    alone = client.post("/predict", content=json.dumps(members))
    assert alone.json()["probability_score"] == expected[0]
    source, target = (tmp_path_factory.mktemp("files") / name for name in ("in.parquet", "out.parquet"))
    table.write_parquet(source)
    predict(bundle, str(source), str(target), lambda _done, _total: None)
    assert pl.read_parquet(target)["probability_score"].to_list() == expected
