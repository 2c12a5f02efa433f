"""What CONTRIBUTING.md says to add a field, a family, a rule or a scenario is enough, and what is forgotten is said."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = "health_predict"
COMPARISON = ROOT / "tests" / "unit" / "evaluation" / "comparison.json"
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
Box = tuple[str, str, str, str]  # file, where, of what, code


def boxes_of(section: str) -> list[Box]:
    """The boxes of code of a section of the page."""
    (text,) = re.findall(rf"\n## {section}\n(.*?)(?=\n## |\Z)", PAGE, re.DOTALL)
    return re.findall(r"```python\n# (\S+), (above|at the end of) (\w+)\n(.*?)```", text, re.DOTALL)


FIELDS = boxes_of("Add a field of an encounter")
FIELD = FIELDS[:1]
FAMILY = boxes_of("Add a model family")
RULE = boxes_of("Add a rule of the gate")
SCENARIO = boxes_of("Add a scenario")


def added(folder: Path, boxes: list[Box]) -> Path:
    """A copy of the code with what the boxes say."""
    source = folder / "src"
    shutil.copytree(ROOT / "src" / PACKAGE, source / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
    for file, where, name, code in boxes:
        path = source / PACKAGE / file
        lines = path.read_text().splitlines(keepends=True)
        lines.insert(_line(path.read_text(), where, name), code + ("\n\n" if where == "above" else ""))
        path.write_text("".join(lines))
    return source


def _line(text: str, where: str, name: str) -> int:
    """Before which line, counted from 0, something goes that belongs above or at the end of a name's definition."""
    for node in ast.parse(text).body:
        targets = {ast.Assign: lambda n: n.targets[0], ast.AnnAssign: lambda n: n.target}.get(
            type(node), lambda _: None
        )
        if name in (getattr(node, "name", None), getattr(targets(node), "id", None)):
            if where == "above":
                return node.lineno - 1
            return node.end_lineno if isinstance(node, ast.ClassDef) else node.end_lineno - 1
    raise AssertionError(f"there is no {name}")


def run(source: Path, script: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(source), str(ROOT / "tests")])
    environment = {**os.environ, "PYTHONPATH": path, "COMPARISON": str(COMPARISON)}
    return subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)


IMPORTED_FROM_THE_COPY = f"import sys, {PACKAGE}; assert {PACKAGE}.__path__[0].startswith(sys.path[1]), sys.path\n"

OF_A_FIELD = """
import json
import msgspec
import numpy as np, polars as pl
from pathlib import Path
from tempfile import mkdtemp
import factories
from serving.support import export_bundle
from health_predict.bundle.onnx import to_onnx
from health_predict.data.decode import decode, encode
from health_predict.data.cohort import label, select_cohort
from health_predict.data.validation import validate
from health_predict.features.encounters import engineer
from health_predict.monitoring.drift import field_drift
from health_predict.monitoring.reference import profile, value_counts
from health_predict.params import DriftParams, PreprocessorParams, ValidationParams
from health_predict.reports.fields_page import markdown
from health_predict.serving.core.contract import EXAMPLE, DocumentedEncounter, InvalidEncounterError, read_encounter
from health_predict.serving.core.model import load_model
from health_predict.store.encounter_files import open_encounters
from health_predict.store.tables import parse_table, table_bytes
from health_predict.training.fit import prepare

def refused(body):
    try:
        read_encounter(json.dumps(body).encode())
    except InvalidEncounterError as error:
        return [problem.to_json()["msg"] for problem in error.problems]

# Validated, kept, and read from files.
table = factories.encounters(3_000, seed=5)
assert table["bmi"].dtype == pl.Float64 and table["bmi"].null_count() and table["bmi"].n_unique() > 300
raw = decode(encode(table))
assert validate(raw, ValidationParams()).encounters.equals(table)
odd = raw.with_columns(bmi=pl.when(pl.int_range(pl.len()) < 3).then(pl.lit("9.5")).otherwise("bmi"))
(finding,) = validate(odd, ValidationParams()).summary
assert (finding.column, finding.reason, finding.rows) == ("bmi", "is not a number from 10.0 to 90.0", 3)
assert parse_table(table_bytes(table, "t"), "t").equals(table)
folder = Path(mkdtemp())
(folder / "e.csv").write_bytes(encode(table))
(batch,) = open_encounters(str(folder / "e.csv")).batches(5_000)
assert batch.encounters["bmi"].equals(table["bmi"])

# Answered and documented.
assert read_encounter(json.dumps({**EXAMPLE, "bmi": 31}).encode())["bmi"] == 31.0
assert read_encounter(json.dumps({**EXAMPLE, "bmi": "?"}).encode())["bmi"] is None
assert refused({**EXAMPLE, "bmi": 95}) == ["must be a number from 10.0 to 90.0, or null"]
assert refused({**EXAMPLE, "bmi": "31"}) == ["must be a number from 10.0 to 90.0, or null"]
assert refused({**EXAMPLE, "living_situation": "abroad"}) == ["must be one of alone, with others, nursing home"]
said = msgspec.json.schema(DocumentedEncounter)["$defs"]["Encounter"]["properties"]["bmi"]
assert {"type": "number", "minimum": 10.0, "maximum": 90.0} in said["anyOf"] and "kg/m2" in said["description"]
assert "| `bmi` | Body mass index at admission. | a number from 10.0 to 90.0 | kg/m2 | yes | yes |" in markdown()
assert "| Living situation | `living_situation` | yes |" in markdown()

# Encoded: a missing one is told from the lowest, and a row scores as it does in a table.
features = engineer(table)
assert {"bmi", "bmi_missing", "living_situation"} <= set(features.columns)
assert features["bmi_missing"].sum() == table["bmi"].null_count()
model = load_model(export_bundle(folder / "bundle"))
cohort = select_cohort(table).head(200)
rows = cohort.to_dicts()
alone = [model.bundle.predict_one(row) for row in rows]
np.testing.assert_allclose(alone, model.bundle.predict_proba(cohort), atol=1e-7)
one_hot = prepare("one_hot", label(cohort, "lt30"), label(cohort, "lt30"), PreprocessorParams())
encoder = one_hot.preprocessor.to_encoder()
expected = one_hot.preprocessor.transform(features[: 1]).toarray()
np.testing.assert_allclose(factories.vectors(encoder, table.head(1).to_dicts()), expected, atol=1e-6)

# Explained: contributions add up, and the field is in them.
for row in rows[:50]:
    explained = model.explainer.explain(row)
    total = explained.reference_probability + sum(one.amount for one in explained.contributions)
    assert abs(total - explained.probability) < 1e-9
factors = {one.factor.name: one.factor for one in explained.contributions}
assert "bmi" in factors["Weight"].fields and factors["Living situation"].can_be_influenced

# Watched.
reference = profile(label(select_cohort(table), "lt30"), np.array(alone))
heavier = table.with_columns(bmi=(pl.col("bmi") + 15).clip(10, 90))
drift = {one.field: one for one in field_drift(reference, value_counts(heavier), DriftParams()).fields}
same = {one.field: one for one in field_drift(reference, value_counts(table), DriftParams()).fields}
assert drift["bmi"].drifted and drift["bmi"].distance > 0.5 and not same["bmi"].drifted
"""

KINDS = """
    Field("falls", "count", "Falls.", nullable=True, maximum=20, unit="falls", example=0, factor="Age"),
    Field("triage", "code", "Triage.", (1, 2, 3), example=2, factor="Admission type and source"),
    Field("clinic", "category", "Clinic.", nullable=True, required=False, example="north", factor="Payer"),
    Field("diag_4", "diagnosis", "Another diagnosis.", nullable=True, example="428", factor="Other diagnoses"),
    Field("crp", "decimal", "CRP.", maximum=400.0, step=1.0, unit="mg/L", example=5.0, required=False, factor="Age"),
    Field("ward", "category", "Ward.", ("a", "b"), closed=True, example="a", factor="Payer", feature=False),
"""

OF_OTHER_KINDS = """
import json
from pathlib import Path
from tempfile import mkdtemp
import msgspec
import numpy as np, polars as pl
import factories
from serving.support import export_bundle
from health_predict.data.cohort import select_cohort
from health_predict.data.decode import decode, encode
from health_predict.data.schema import CLINICAL
from health_predict.data.validation import validate
from health_predict.features.encounters import NUMBERS, engineer
from health_predict.params import ValidationParams
from health_predict.serving.core.contract import EXAMPLE, DocumentedEncounter, check_pairs, parse, read_encounter
from health_predict.serving.core.model import load_model

table = factories.encounters(2_000, seed=5)
assert validate(decode(encode(table)), ValidationParams()).encounters.equals(table)
assert {"falls", "falls_missing", "triage", "clinic", "diag_4_ccs_group", "crp", "crp_missing"} <= set(
    engineer(table).columns
) and not {"ward", "diag_4", "triage_missing"} & set(engineer(table).columns)
assert next(one for one in NUMBERS if one.name == "comorbidities") and "clinic" not in EXAMPLE and "crp" not in EXAMPLE
model = load_model(export_bundle(Path(mkdtemp())))
assert "diag_4" in model.bundle.encoder.fields and "ward" not in model.bundle.encoder.fields
cohort = select_cohort(table).head(100).with_columns(
    crp=pl.when(pl.int_range(pl.len()) % 3 > 0).then("crp"), falls=pl.when(pl.int_range(pl.len()) % 3 > 0).then("falls")
)
rows = [{field.name: row[field.name] for field in CLINICAL} for row in cohort.to_dicts()]
alone = [model.bundle.predict_one(row) for row in rows]
np.testing.assert_allclose(alone, model.bundle.predict_proba(cohort), atol=1e-7)
for row in rows:
    body = json.dumps(row).encode()
    read = read_encounter(body)
    documented = msgspec.json.decode(body, type=DocumentedEncounter)
    assert row == read == check_pairs(parse(body)) == documented
    explained = model.explainer.explain(read)
    total = explained.reference_probability + sum(one.amount for one in explained.contributions)
    assert abs(total - explained.probability) < 1e-9
"""

OF_A_FAMILY = """
import numpy as np
import factories
from health_predict.adapters import ray_search
from health_predict.bundle.export import LIBRARIES
from health_predict.bundle.onnx import to_onnx
from health_predict.cli.options import families_named
from health_predict.data.cohort import label, select_cohort
from health_predict.params import BundleParams, PreprocessorParams, SearchParams
from health_predict.training.candidates import CANDIDATES, TITLES
from health_predict.training.fit import importance, prepare
from health_predict.training.search import only_trial

assert families_named("extra_trees, xgboost") == ("extra_trees", "xgboost")
assert TITLES["extra_trees"] == "ExtraTrees" and set(LIBRARIES) >= {one.library for one in CANDIDATES.values()}
candidate = CANDIDATES["extra_trees"]
assert all(ray_search._distribution(bounds).single() is False for bounds in candidate.space.values())
assert candidate.default(100_000) == {"n_estimators": 300, "min_samples_leaf": 20}
parts = [label(select_cohort(factories.encounters(rows, seed=rows)), "lt30") for rows in (1_500, 500)]
prepared = prepare(candidate.encoding, *parts, PreprocessorParams())
search, fitted = only_trial("extra_trees", prepared, SearchParams(), BundleParams.capacity, lambda *_: None)
assert len(search.best.auroc) == SearchParams().reports and abs(sum(importance(fitted).values()) - 1) < 1e-9
import onnxruntime
graph = to_onnx("extra_trees", fitted.model, prepared.fold.X_validation.shape[1])
log_odds = onnxruntime.InferenceSession(graph).run(["log_odds"], {"X": prepared.fold.X_validation})[0][:, 0]
expected = fitted.model.predict_proba(prepared.fold.X_validation)[:, 1]
np.testing.assert_allclose(1 / (1 + np.exp(-log_odds)), expected, atol=1e-6)
"""

OF_A_RULE = """
import json, os
from dataclasses import replace
from pathlib import Path
from health_predict.evaluation.gate import Comparison, checks, objections
from health_predict.params import GateParams

comparison = Comparison.from_dict(json.loads(Path(os.environ["COMPARISON"]).read_bytes()))
assert objections(comparison, GateParams()) == []
assert checks(comparison, GateParams())[-1].name == "enough patients"
few = replace(comparison, challenger=replace(comparison.challenger, patients=1_499))
assert objections(few, GateParams()) == ["1499 patients compared; at least 1500 needed."]
"""

OF_A_SCENARIO = """
import factories
from health_predict.data.decode import decode, encode
from health_predict.data.validation import validate
from health_predict.params import ScenarioParams, ValidationParams
from health_predict.simulation.scenarios import SCENARIOS, inject

batch = factories.encounters(500)
found = inject("shorter_stays", batch, 0, ScenarioParams())
assert 0 < batch["time_in_hospital"].mean() - found["time_in_hospital"].mean() <= 1
assert validate(decode(encode(found)), ValidationParams()).encounters.equals(found)
"""


@pytest.mark.parametrize(
    ("boxes", "script"),
    [
        pytest.param(FIELDS, OF_A_FIELD, id="fields", marks=pytest.mark.slow),
        pytest.param(
            [("data/schema.py", "at the end of", "FIELDS", KINDS)], OF_OTHER_KINDS, id="kinds", marks=pytest.mark.slow
        ),
        pytest.param(FAMILY, OF_A_FAMILY, id="family", marks=pytest.mark.slow),
        pytest.param(RULE, OF_A_RULE, id="rule"),
        pytest.param(SCENARIO, OF_A_SCENARIO, id="scenario"),
    ],
)
def test_what_the_page_says_is_all_that_is_needed(tmp_path, boxes, script):
    result = run(added(tmp_path, boxes), IMPORTED_FROM_THE_COPY + script)
    assert result.returncode == 0, result.stderr


def without(boxes: list[Box], pattern: str, instead: str = "") -> list[Box]:
    changed = [(*one[:3], re.sub(pattern, instead, one[3])) for one in boxes]
    assert changed != boxes
    return [one for one in changed if one[3].strip()]


@pytest.mark.parametrize(
    ("boxes", "module", "said"),
    [
        (without(FIELD, r" *factor=.*\n"), "data.schema", "field 'bmi' of data/schema.py has no factor: contributions"),
        (without(FIELD, r'"Weight"', '"Wait"'), "data.schema", "factor 'Wait', which is none of FACTORS: Hospital use"),
        (
            without(FIELD, r" *maximum=.*\n"),
            "data.schema",
            "field 'bmi' of data/schema.py is a decimal without a range",
        ),
        (without(FIELD, r" *step=.*\n"), "data.schema", "is a decimal whose `step` is not stated"),
        (without(FIELD, r" *unit=.*\n"), "data.schema", "field 'bmi' of data/schema.py is a decimal without a unit"),
        (without(FIELD, r" *example=.*\n"), "data.schema", "has an example that is not a number from 10.0 to 90.0"),
        (without(FIELD, '"Body.*"', '""'), "data.schema", "field 'bmi' of data/schema.py has no description"),
        (without(FIELD, '"bmi"', '"race"'), "data.schema", "data/schema.py has two fields that are called race"),
        (without(FIELDS, r"(?s).*Field\(.*"), "data.schema", "a factor twice or without a field: Living situation"),
        (without(FAMILY, r" *seconds=.*\n"), "cli", "missing 1 required keyword-only argument: 'seconds'"),
        (
            without(FAMILY, r'"min_samples_leaf": R', '"min_leaf": R'),
            "cli",
            "searches 'min_leaf', which its training does",
        ),
        (
            without(FAMILY, r' *"min_samples_leaf": R.*\n'),
            "cli",
            "takes 'min_samples_leaf', which `space` does not have",
        ),
        (
            without(FAMILY, r"5, 60, 20", "5, 15, 20"),
            "cli",
            "range of 'min_samples_leaf' that its default lies outside of",
        ),
        (
            without(FAMILY, '"extra_trees"', '"xgboost"'),
            "cli",
            "two families of training/candidates.py have the same name",
        ),
        (RULE[:2], "evaluation.gate", "the gate would never ask _patients: a rule has its place in RULES"),
        (
            without(SCENARIO, '"shorter_stays"', '"none"'),
            "simulation.scenarios",
            "two scenarios of simulation/scenarios.py",
        ),
        (without(SCENARIO, '"Everybody.*?"', '""'), "simulation.scenarios", "does not say what happens"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_forgotten_stops_the_import_with_a_sentence(tmp_path, boxes, module, said):
    result = run(added(tmp_path, boxes), f"import {PACKAGE}.{module}")
    assert result.returncode != 0
    assert said in result.stderr.splitlines()[-1]


def test_every_box_of_the_page_is_tested():
    assert PAGE.count("```python") == sum(map(len, (FIELDS, FAMILY, RULE, SCENARIO)))


def test_the_page_of_fields_is_that_of_the_schema():
    from health_predict.reports.fields_page import markdown

    assert (ROOT / "docs" / "fields.md").read_text() == markdown(), "run `make fields`"


def test_every_scenario_is_documented():
    from health_predict.simulation.scenarios import SCENARIOS

    page = (ROOT / "docs" / "monitoring.md").read_text()
    assert [name for name in SCENARIOS if f"`{name}`" not in page] == []


def test_every_limit_of_the_gate_is_read():
    from dataclasses import fields

    from health_predict.params import GateParams

    code = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    assert [field.name for field in fields(GateParams) if not re.search(rf"\.{field.name}\b", code)] == []
