"""Care that acts on flags: a scenario in this process, and a hospital that says what it did."""

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import polars as pl
import pytest

from factories import encounters
from health_predict.bundle.model import load_bundle
from health_predict.data.cohort import outcome, select_cohort
from health_predict.data.follow_up import REPRESENTS
from health_predict.data.schema import OUTCOME
from health_predict.errors import DataError, Declined
from health_predict.params import (
    AssemblyParams,
    BootstrapParams,
    DriftParams,
    FollowUpParams,
    GateParams,
    IntakeParams,
    Params,
    ScenarioParams,
)
from health_predict.steps.data.intake_encounters import intake_encounters
from health_predict.steps.data.intake_outcomes import intake_outcomes
from health_predict.steps.loop.arrive import arrive
from health_predict.steps.loop.assemble import assemble
from health_predict.steps.loop.decide import decide
from health_predict.steps.loop.judge import judge
from health_predict.steps.loop.mature import mature
from health_predict.steps.loop.monitor import monitor, monitor_file
from health_predict.steps.loop.score import score
from health_predict.store import layout
from health_predict.store.batches import FOLLOWED_UP, UNTREATED, read_matured, read_outcomes
from health_predict.store.datasets import read_part, vouch
from health_predict.store.follow_up import read_judgeable
from health_predict.store.intake import newest_statements, read_intake
from health_predict.store.storage import Folder
from loop import Registry, crown, export_champion, lay_out
from stores import workspace_of

TABLE = encounters(4_000)
PARAMS = Params(
    assembly=AssemblyParams(test_rows=300, validation_rows=200),
    bootstrap=BootstrapParams(replicates=20),
    drift=DriftParams(min_rows=100, replicates=10, separation_trees=5),
    gate=GateParams(min_rows=100, min_outcomes=5, min_subgroup_outcomes=1_000),
)


def split(storage: Folder) -> None:
    """Initial data and one batch."""
    lay_out(storage, TABLE, 800, 300, 400)


@pytest.fixture(scope="module")
def champion(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    storage = Folder(str(tmp_path_factory.mktemp("initial")))
    split(storage)
    with patch("health_predict.steps.loop.monitor.html", return_value=b""):
        yield export_champion(storage, tmp_path_factory.mktemp("champion") / "bundle", PARAMS)


@pytest.fixture
def storage(champion, tmp_path) -> Folder:
    """A store with a version in production."""
    storage = Folder(str(tmp_path / "store"))
    split(storage)
    crown(storage, champion, PARAMS)
    return storage


def scored(storage: Folder, champion: Path, scenario: str, params: ScenarioParams) -> None:
    arrive(storage, params, 1, scenario, from_batch=1)
    score(workspace_of(storage, Registry(champion)), 1, "1")


@pytest.fixture
def treated(storage, champion) -> Folder:
    """A batch that was scored, and of whose flagged encounters half were followed up."""
    scored(storage, champion, "effective_follow_up", PARAMS.scenario)
    mature(storage, 1)
    return storage


def test_the_flagged_are_followed_up_by_chance_and_fewer_of_them_readmitted(treated, champion):
    care = read_judgeable(treated, 1, PARAMS.follow_up).care
    outcomes = read_outcomes(treated, 1)
    followed_up = outcomes[FOLLOWED_UP].to_numpy()
    assert not followed_up[~care.flagged].any()
    assert 0.4 < followed_up[care.flagged].mean() < 0.6
    untreated = outcome(read_outcomes(treated, 1).with_columns(pl.col(UNTREATED).alias(OUTCOME)))
    became = outcome(outcomes)
    assert (untreated == outcome(select_cohort(TABLE.slice(1_500)))).all()
    assert (became == untreated)[~followed_up].all()
    assert not (became & ~untreated).any()
    assert became[followed_up].sum() < untreated[followed_up].sum()
    before = treated.read(layout.outcomes(1))
    assert mature(treated, 1).skipped
    assert treated.read(layout.outcomes(1)) == before


def test_a_batch_is_judged_on_those_not_followed_up_and_the_effect_is_told(treated, champion):
    (judged,) = judge(workspace_of(treated, Registry(champion)), PARAMS)
    followed_up = int(read_outcomes(treated, 1)[FOLLOWED_UP].sum())
    assert judged.performance.current.rows == judged.rows - followed_up
    assert judged.follow_up.followed_up == followed_up
    assert judged.follow_up.ratio is not None
    naive = replace(PARAMS, follow_up=FollowUpParams(reading="naive"))
    treated.delete(layout.performance(1))
    (looked_away,) = judge(workspace_of(treated, Registry(champion)), naive)
    assert looked_away.performance.current.rows == looked_away.rows
    assert looked_away.follow_up is None


def test_a_data_set_says_whom_each_encounter_represents_and_labels_follow(treated):
    made = assemble(treated, PARAMS, 2)
    vouched = vouch(treated, made.dataset)
    parts = [read_part(treated, vouched, key, "lt30")[0] for key in vouched.files]
    assert all(part.represents is not None for part in parts)
    followed_up = read_outcomes(treated, 1).filter(FOLLOWED_UP)["encounter_id"].to_list()
    for key, part in zip(vouched.files, parts, strict=True):
        nobody = part.encounters.filter(part.represents == 0)["encounter_id"]
        among = set(followed_up) & set(part.encounters["encounter_id"])
        assert set(nobody) == (set() if key == made.dataset.train else among)
        assert REPRESENTS not in part.encounters.columns
    judgeable = [part.judgeable for part in parts]
    assert min(len(part.outcomes) for part in judgeable) >= PARAMS.gate.min_rows
    naive = replace(PARAMS, follow_up=FollowUpParams(reading="naive"))
    looked_away = assemble(treated, naive, 3)
    assert (
        read_part(treated, vouch(treated, looked_away.dataset), looked_away.dataset.train, "lt30")[0].represents is None
    )


def test_without_follow_up_a_data_set_has_nothing_of_it(storage, champion):
    scored(storage, champion, "none", PARAMS.scenario)
    mature(storage, 1)
    assert read_outcomes(storage, 1).columns == ["encounter_id", OUTCOME]
    made = assemble(storage, PARAMS, 2)
    assert REPRESENTS not in pl.read_parquet(io.BytesIO(storage.read(made.dataset.train))).columns


def test_with_follow_up_everywhere_nothing_is_judged_or_trained_and_it_is_said_why(storage, champion):
    everybody = ScenarioParams(follow_up_share=1.0)
    scored(storage, champion, "effective_follow_up", everybody)
    mature(storage, 1)
    workspace = workspace_of(storage, Registry(champion))
    (judged,) = judge(workspace, PARAMS)
    assert judged.performance is None
    assert "cannot be known" in judged.unjudged
    with pytest.raises(Declined, match="Only 0 matured"):
        assemble(storage, PARAMS, 2)
    monitor(workspace, PARAMS, 1)
    decided = decide(storage, PARAMS, 1)
    assert decided.stock.fresh_rows == 0
    publish_second(storage)
    monitor(workspace, PARAMS, 2)
    decided = decide(storage, PARAMS, 2)
    assert (decided.stock.unknown_rows, decided.stock.new_rows) == (judged.rows, 0)
    assert any("say nothing" in reason for reason in decided.reasons)
    assumed = replace(PARAMS, follow_up=FollowUpParams(assumed_ratio=0.7))
    assert assemble(storage, assumed, 3).test >= PARAMS.gate.min_rows


def publish_second(storage: Folder) -> None:
    """Another batch arrives, by intake."""
    table = select_cohort(encounters(400, seed=9)).with_columns(pl.col("encounter_id") + 700_000_000)
    file = Path(storage.root).parent / "second.parquet"
    table.drop(OUTCOME).write_parquet(file)
    intake_encounters(storage, IntakeParams(), "me", str(file))


@pytest.fixture
def hospital(storage, champion, tmp_path):
    """A batch by intake, scored; and what `say` says of it in a file of outcomes."""
    table = select_cohort(TABLE.slice(1_500))
    file = tmp_path / "march.parquet"
    table.drop(OUTCOME).write_parquet(file)
    intake_encounters(storage, IntakeParams(), "me", str(file))
    score(workspace_of(storage, Registry(champion)), 1, "1")

    def say(*columns: pl.Series | pl.Expr, rows: int | None = None):
        said = tmp_path / "said.csv"
        table.select("encounter_id", OUTCOME, *columns).head(rows or table.height).write_csv(said)
        return intake_outcomes(storage, IntakeParams(), "me", str(said))

    return storage, table, say


CALLED = (
    pl.when(pl.col("encounter_id") % 3 == 0).then(pl.lit("telephone call")).otherwise(pl.lit("none")).alias(FOLLOWED_UP)
)


def test_what_was_done_is_kept_with_the_statement_and_reaches_the_loop(hospital, champion):
    storage, table, say = hospital
    when = pl.when(pl.col("encounter_id") % 3 == 0).then(pl.lit("2026-03-05")).alias("followed_up_on")
    found = say(CALLED, when)
    called = table.filter(pl.col("encounter_id") % 3 == 0).height
    assert (found.followed_up, found.batches[0].followed_up) == (called, called)
    said = newest_statements(storage, read_intake(storage))
    assert set(said[FOLLOWED_UP]) == {"telephone call", "none"}
    assert said["followed_up_on"].null_count() == table.height - called
    assert read_outcomes(storage, 1)[FOLLOWED_UP].sum() == called
    assert read_matured(storage, 1).columns == table.columns
    (judged,) = judge(workspace_of(storage, Registry(champion)), PARAMS)
    flagged = read_judgeable(storage, 1, PARAMS.follow_up).care.flagged
    assert judged.follow_up.followed_up + judged.follow_up.not_followed_up == flagged.sum()


def test_the_newest_statement_counts_and_one_that_is_silent_takes_nothing_back(hospital):
    storage, table, say = hospital
    say()
    assert FOLLOWED_UP not in read_outcomes(storage, 1).columns
    say(CALLED)
    followed_up = read_outcomes(storage, 1)
    say(rows=table.height - 1)
    assert read_outcomes(storage, 1).equals(followed_up)
    say(pl.lit("none").alias(FOLLOWED_UP))
    assert FOLLOWED_UP not in read_outcomes(storage, 1).columns


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ([pl.lit("x" * 65).alias(FOLLOWED_UP)], "longer than 64 characters"),
        ([CALLED, pl.lit("5 March").alias("followed_up_on")], "no day as 2026-01-31"),
        ([CALLED, pl.lit("2026-03-05").alias("followed_up_on")], "where nothing was done"),
    ],
    ids=["long", "no day", "a day of nothing"],
)
def test_a_statement_that_does_not_fit_is_refused_without_a_value(hospital, columns, message):
    storage, _, say = hospital
    with pytest.raises(DataError, match=message) as refused:
        say(*columns)
    assert "5 March" not in str(refused.value)
    assert not storage.exists(layout.outcomes(1))


def test_a_file_with_outcomes_is_judged_on_those_not_followed_up(storage, champion, tmp_path):
    current, known = tmp_path / "current.parquet", tmp_path / "known.csv"
    table = select_cohort(TABLE.slice(1_500))
    table.drop(OUTCOME).write_parquet(current)
    risks = load_bundle(champion).predict_proba(table)
    readmitted = pl.Series(OUTCOME, np.where(np.random.default_rng(1).random(len(risks)) < risks, "<30", "NO"))
    table.select("encounter_id", readmitted, CALLED).write_csv(known)
    workspace = workspace_of(storage, Registry(champion))
    (judged,) = monitor_file(workspace, PARAMS, str(current), outcomes=str(known)).outcomes
    assert judged.performance.current.rows == table.filter(pl.col("encounter_id") % 3 != 0).height
    assert judged.follow_up is not None
    table.select("encounter_id", OUTCOME, pl.lit("call").alias(FOLLOWED_UP)).write_csv(known)
    with pytest.raises(DataError, match="cannot be known"):
        monitor_file(workspace, PARAMS, str(current), outcomes=str(known))
