"""A bundle scores what the trained model scores, and nothing else than a whole bundle is loaded."""

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

import factories
from health_predict.adapters.download import extract_csv, read_source
from health_predict.bundle.export import Provenance, bands, export
from health_predict.bundle.model import ENCODER, FORMAT, MANIFEST, MODEL, REFERENCE, Bundle, load_bundle
from health_predict.data.cohort import LabelledEncounters, label, select_cohort
from health_predict.data.decode import decode
from health_predict.data.schema import CLINICAL
from health_predict.data.splits import Splits, split
from health_predict.data.validation import validate
from health_predict.errors import BundleError
from health_predict.evaluation.operating_point import threshold_at
from health_predict.params import (
    BundleParams,
    Family,
    Params,
    PreprocessorParams,
    SearchParams,
    SplitParams,
    ValidationParams,
)
from health_predict.store import layout
from health_predict.store.bundles import kept_manifest
from health_predict.store.storage import Folder
from health_predict.training.candidates import CANDIDATES
from health_predict.training.fit import Fitted, fit, prepare

RAW_DATA = os.environ.get("HEALTH_PREDICT_RAW_DATA")
FAMILIES = tuple(CANDIDATES)
PROVENANCE = Provenance("run", "initial", "lt30", (), synthetic=True, simulation=None, git_revision="unknown", seed=1)
Parts = tuple[LabelledEncounters, LabelledEncounters, pl.DataFrame]


def parts(splits: Splits) -> Parts:
    return label(splits.train, "lt30"), label(splits.validation, "lt30"), splits.test


@pytest.fixture(scope="module")
def invented() -> Parts:
    cohort = select_cohort(factories.encounters(2_500, seed=51))
    return parts(split(cohort, SplitParams(initial_share=0.95)))


@pytest.fixture(scope="module")
def real() -> Parts:
    if not RAW_DATA:
        pytest.skip("HEALTH_PREDICT_RAW_DATA names no copy of the dataset")
    encounters = validate(decode(extract_csv(read_source(RAW_DATA))), ValidationParams()).encounters
    return parts(split(select_cohort(encounters), SplitParams()))


def trained(family: Family, train: LabelledEncounters, validation: LabelledEncounters) -> Fitted:
    candidate = CANDIDATES[family]
    prepared = prepare(candidate.encoding, train, validation, PreprocessorParams())
    return fit(family, candidate.default(len(train.outcomes)), prepared, SearchParams(), BundleParams.capacity)


def exported(folder: Path, fitted: Fitted, data: Parts, params: Params | None = None) -> tuple[Bundle, float]:
    train, validation, _ = data
    return export(folder, fitted, train, validation, {}, PROVENANCE, params or Params())


@pytest.fixture(scope="module")
def fitted(invented: Parts) -> Fitted:
    return trained("lightgbm", *invented[:2])


@pytest.fixture(scope="module")
def pristine(invented: Parts, fitted: Fitted, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    exported(folder, fitted, invented)
    return folder


@pytest.fixture
def bundle(pristine: Path, tmp_path: Path) -> Path:
    """A whole bundle, to be damaged."""
    return Path(shutil.copytree(pristine, tmp_path / "bundle"))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("data", ["invented", pytest.param("real", marks=pytest.mark.slow)])
def test_a_bundle_scores_what_the_trained_pipeline_scores(family, data, request, tmp_path):
    train, validation, test = request.getfixturevalue(data)
    model = trained(family, train, validation)
    bundle, difference = exported(tmp_path / "bundle", model, (train, validation, test))
    assert difference <= 1e-6
    for table in (validation.encounters, test):
        scored, expected = bundle.predict_proba(table), model.predict_proba(table)
        assert np.abs(scored - expected).max() <= 1e-6
        alone = [bundle.predict_one(row) for row in table.head(200).to_dicts()]
        assert np.abs(np.array(alone) - scored[:200]).max() <= 1e-6


def test_the_folder_holds_every_part_with_its_digest_and_no_pickle(pristine):
    manifest = load_bundle(pristine).manifest
    assert {path.name for path in pristine.iterdir()} == {ENCODER, MODEL, REFERENCE, MANIFEST}
    assert manifest.files == {
        name: hashlib.sha256((pristine / name).read_bytes()).hexdigest() for name in (ENCODER, MODEL, REFERENCE)
    }
    assert [band.name for band in manifest.bands] == ["low", "moderate", "high", "very high"]
    assert manifest.percentiles == sorted(manifest.percentiles)


def test_golden_rows_are_invented_and_hold_no_identifier(pristine):
    manifest = load_bundle(pristine).manifest
    assert len(manifest.golden) == BundleParams().golden_rows
    names = {field.name for field in CLINICAL}
    assert all(set(row.encounter) == names for row in manifest.golden)


def test_bands_and_percentiles_follow_the_probability(pristine, invented):
    bundle = load_bundle(pristine)
    proba = np.sort(bundle.predict_proba(invented[1].encounters))
    order = [band.name for band in bundle.manifest.bands]
    positions = [order.index(bundle.band(float(p))) for p in proba]
    assert positions == sorted(positions)
    assert set(positions) == {0, 1, 2, 3}
    percentiles = [bundle.percentile(float(p)) for p in (0.0, *proba, 1.0)]
    assert percentiles == sorted(percentiles)
    assert (percentiles[0], percentiles[-1]) == (0, 100)


def test_who_is_flagged_is_in_a_high_band_and_nobody_else(pristine, invented):
    bundle = load_bundle(pristine)
    threshold = bundle.manifest.threshold
    risks = [*bundle.predict_proba(invented[1].encounters), threshold, np.nextafter(threshold, 0)]
    assert all((bundle.band(float(p)) in ("high", "very high")) == (p >= threshold) for p in risks)


def test_of_a_fifth_that_is_flagged_the_bands_are_the_lower_half_and_the_top_twentieth():
    risks = np.random.default_rng(4).permutation(1_000) / 1_000
    found = bands(risks, threshold_at(0.20, risks), BundleParams())
    assert [round(float((risks >= band.lower).mean()), 3) for band in found] == [1.0, 0.5, 0.2, 0.05]


@pytest.mark.parametrize("risks", [[0.1] * 9, [0.1] * 8 + [0.2], [0.1, 0.2], [0.0, 1.0, 1.0], [0.3]])
def test_bounds_of_bands_ascend_where_risks_are_tied(risks):
    proba = np.array(risks)
    threshold = threshold_at(0.20, proba)
    lower = [band.lower for band in bands(proba, threshold, BundleParams())]
    assert lower == sorted(lower)
    assert (lower[0], lower[2]) == (0.0, threshold)
    assert lower[1] < threshold


def test_a_kept_bundle_of_another_format_is_refused_with_a_sentence(pristine, tmp_path):
    described = msgspec.json.decode((pristine / MANIFEST).read_bytes())
    del described["capacity"]
    document = msgspec.json.encode(described | {"format": FORMAT - 1})
    digest, storage = hashlib.sha256(document).hexdigest(), Folder(str(tmp_path))
    storage.write(f"{layout.bundle(digest)}/{MANIFEST}", document)
    with pytest.raises(
        BundleError, match=f"has format {FORMAT - 1}, and this version of Health Predict reads format {FORMAT}"
    ):
        kept_manifest(storage, digest)


def test_an_empty_table_has_no_scores(pristine):
    assert load_bundle(pristine).predict_proba(factories.encounters(1).clear()).shape == (0,)


def test_rows_score_the_same_across_chunks(pristine, monkeypatch):
    bundle, table = load_bundle(pristine), factories.encounters(70, seed=3)
    whole = bundle.predict_proba(table)
    monkeypatch.setattr("health_predict.bundle.model.CHUNK", 16)
    assert np.array_equal(bundle.predict_proba(table), whole)


@pytest.mark.parametrize("name", [ENCODER, MODEL, REFERENCE, MANIFEST])
def test_a_missing_part_is_named(bundle, name):
    (bundle / name).unlink()
    with pytest.raises(BundleError, match=f"has no {name}"):
        load_bundle(bundle)


@pytest.mark.parametrize("name", [ENCODER, MODEL, REFERENCE, MANIFEST])
def test_a_truncated_part_is_named(bundle, name):
    content = (bundle / name).read_bytes()
    (bundle / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(BundleError, match=name):
        load_bundle(bundle)


@pytest.mark.parametrize("name", [ENCODER, MODEL, REFERENCE])
def test_an_altered_part_is_named(bundle, name):
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"{name} in .* was altered"):
        load_bundle(bundle)


def rewrite(bundle: Path, **changes: Any) -> None:
    document = msgspec.json.decode((bundle / MANIFEST).read_bytes())
    (bundle / MANIFEST).write_bytes(msgspec.json.encode({**document, **changes}))


def resign(bundle: Path) -> None:
    """Make the digests fit again, as whoever altered a part on purpose would."""
    rewrite(
        bundle,
        files={name: hashlib.sha256((bundle / name).read_bytes()).hexdigest() for name in (ENCODER, MODEL, REFERENCE)},
    )


def test_another_format_is_refused_by_number(bundle):
    rewrite(bundle, format=99)
    with pytest.raises(BundleError, match="format 99, and this version of Health Predict reads format 4"):
        load_bundle(bundle)


@pytest.mark.parametrize("changes", [{"threshold": "high"}, {"surprise": 1}, {"golden": None}])
def test_a_description_that_does_not_fit_is_refused(bundle, changes):
    rewrite(bundle, **changes)
    with pytest.raises(BundleError, match=MANIFEST):
        load_bundle(bundle)


def test_another_model_with_fitting_digests_fails_the_golden_rows(bundle, invented, tmp_path):
    other = trained("xgboost", *invented[:2])
    exported(tmp_path / "other", other, invented)
    shutil.copy(tmp_path / "other" / MODEL, bundle / MODEL)
    resign(bundle)
    with pytest.raises(BundleError, match=r"golden row 0 .* scores .* away"):
        load_bundle(bundle)


def test_a_bundle_without_golden_rows_cannot_be_verified(bundle):
    rewrite(bundle, golden=[])
    with pytest.raises(BundleError, match="no golden rows"):
        load_bundle(bundle)


@pytest.mark.parametrize(("name", "content"), [(MODEL, b"no graph"), (ENCODER, b"{}"), (ENCODER, b"[1]")])
def test_a_part_that_means_nothing_is_named_though_its_digest_fits(bundle, name, content):
    (bundle / name).write_bytes(content)
    resign(bundle)
    with pytest.raises(BundleError, match=name):
        load_bundle(bundle)


def test_an_export_that_differs_from_the_model_is_refused(invented, fitted, tmp_path):
    with pytest.raises(BundleError, match="exported lightgbm differs from the trained one by up to"):
        exported(tmp_path / "bundle", fitted, invented, Params(bundle=BundleParams(max_onnx_difference=-1.0)))
