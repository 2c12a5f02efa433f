"""What the monitor sees and how soon: every scenario, and batches without drift, on the public dataset.

    HEALTH_PREDICT_RAW_DATA=dataset_diabetes.zip python -m benchmarks.scenarios

Every batch of the data has drifted from the one before, so none can show a false alarm. Here the patients of four
neighbouring batches are put in random order and dealt into initial data and six batches, which then differ by chance
only; a LightGBM is trained on the initial data, and the steps of the loop run batch by batch, without retraining. A
scenario begins with batch 3. All of this is done for several orders of the patients. Writes the table of
docs/results.md; about two minutes an order.
"""

import argparse
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
import polars as pl

from benchmarks.markers import replace_section
from health_predict.adapters.registry import BUNDLE, Registry
from health_predict.bundle.model import load_bundle
from health_predict.data.batches import batches
from health_predict.data.cohort import select_cohort
from health_predict.data.splits import split as split_cohort
from health_predict.params import Params, SearchParams, SplitParams
from health_predict.settings import Settings
from health_predict.simulation.scenarios import SCENARIOS
from health_predict.steps.data.fetch import fetch
from health_predict.steps.data.split import split
from health_predict.steps.data.validate import validate
from health_predict.steps.loop.arrive import arrive
from health_predict.steps.loop.judge import judge
from health_predict.steps.loop.mature import mature
from health_predict.steps.loop.monitor import monitor
from health_predict.steps.loop.score import score
from health_predict.steps.model.evaluate import evaluate
from health_predict.steps.model.train import Progress, train
from health_predict.store import layout
from health_predict.store.bundles import keep_bundle
from health_predict.store.ledger import read_ledger
from health_predict.store.manifests import publish
from health_predict.store.monitoring_reports import MonitoringReport
from health_predict.store.storage import Folder
from health_predict.store.tables import read_table, table_bytes
from health_predict.workspace import Workspace
from health_predict.workspace.production import decide, drafted, subject_of

PAGE = Path("docs/results.md")
WHO = "benchmark"
PARAMS = Params(search=SearchParams(families=("lightgbm",), trials=1))
POOLED = slice(4, 8)  # of the ten future batches: 5 to 8
DEALT = SplitParams(initial_share=0.40, train_share=0.60, batches=6)
BEGINS = 3


@dataclass(frozen=True)
class Expected:
    """Where a scenario is to be seen, and within how many batches from its first on."""

    where: str
    within: int
    seen: Callable[[MonitoringReport], bool]


def _inputs(report: MonitoringReport) -> bool:
    return bool(report.drift.reasons or report.predictions.reasons or report.separation.reasons)


def _says(part: str) -> Callable[[MonitoringReport], bool]:
    return lambda report: any(part in reason for reason in report.drift.reasons)


def _outcomes(part: str) -> Callable[[MonitoringReport], bool]:
    """In the outcomes of a batch of the scenario; they are judged when the next batch arrives."""
    return lambda report: any(
        (judged.batch or 0) >= BEGINS and any(part in reason for reason in judged.reasons) for judged in report.outcomes
    )


EXPECTED: Mapping[str, Expected] = {
    "gradual_covariate_shift": Expected("fields, scores or combinations", 3, _inputs),
    "abrupt_covariate_shift": Expected("fields, scores or combinations", 1, _inputs),
    "coding_change": Expected("values never seen", 1, _says("never seen")),
    "missing_feed": Expected("missing values", 1, _says("is missing in")),
    "label_shift": Expected("observed / expected, once matured", 1, _outcomes("observed over expected")),
    "concept_shift": Expected("AUROC, once matured", 1, _outcomes("AUROC is")),
}


@dataclass(frozen=True)
class Delay:
    """Batches of a scenario that were judged until it was seen, and until an alarm was raised for something new.

    The batch itself is included; None: not in the batches there are. `after` says of each batch after such an alarm
    whether its status is one, and whether another was raised.
    """

    seen: int | None
    raised: int | None
    after: tuple[tuple[bool, bool], ...]


@dataclass(frozen=True)
class World:
    """A store in which a model is in production and batches wait."""

    storage: Folder
    registry: Registry

    @property
    def root(self) -> Path:
        return Path(self.storage.root)

    @property
    def workspace(self) -> Workspace:
        return Workspace(self.storage, lambda: self.registry, self.root / "cache")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orders", type=int, default=5, help="of the patients")
    orders = parser.parse_args().orders
    quiet: list[MonitoringReport] = []
    delays: dict[str, list[Delay]] = {name: [] for name in EXPECTED}
    refused = []
    with tempfile.TemporaryDirectory() as scratch, patch("health_predict.steps.loop.monitor.html", return_value=b""):
        # Without the page for people, which nothing decides on and which takes most of a batch's time.
        months = _months(_world(Path(scratch) / "data"))
        for seed in range(orders):
            start = _with_champion(_world(Path(scratch) / f"order_{seed}"), months, seed)
            before = [_watch(start, number, "none") for number in range(1, BEGINS)]
            for name in EXPECTED:
                delays[name].append(_delay(_copy(start, name), name))
            refused.append(
                arrive(_copy(start, "break").storage, PARAMS.scenario, BEGINS, "schema_break", BEGINS).refused
            )
            quiet += [*before, *(_watch(start, number, "none") for number in range(BEGINS, DEALT.batches + 1))]
            print(seed, delays, [report.reasons for report in quiet if report.reasons], flush=True)
    replace_section(PAGE, "scenarios", table(quiet, delays, all(refused)))


def table(quiet: Iterable[MonitoringReport], delays: Mapping[str, list[Delay]], refused: bool) -> str:
    """Markdown: false alarms without drift, then a row a scenario."""
    alarms = [bool(report.reasons) for report in quiet]
    raised = [_raised(report) for report in quiet]
    lines = [
        "| scenario | to be seen in | batches until seen, by order of the patients | until a new alarm "
        "| of the batches after that | to reach |",
        "|---|---|---|---|---|---|",
        f"| `none` | nothing | {sum(alarms)} of {len(alarms)} batches are an alarm | {sum(raised)} of {len(raised)} "
        "batches raise one | | at most 2 of 20 |",
    ]
    for name, expected in EXPECTED.items():
        seen = ", ".join("not seen" if delay.seen is None else str(delay.seen) for delay in delays[name])
        new = ", ".join("none" if delay.raised is None else str(delay.raised) for delay in delays[name])
        after = [one for delay in delays[name] for one in delay.after]
        status, again = (sum(one[place] for one in after) for place in (0, 1))
        later = f"{status} of {len(after)} are an alarm, {again} raise a new one"
        lines.append(f"| `{name}` | {expected.where} | {seen} | {new} | {later} | {expected.within} |")
    lines.append(f"| `schema_break` | the schema | {'refused' if refused else 'not refused'} | | | refused |")
    return "\n".join(lines)


def _world(root: Path) -> World:
    settings = Settings(storage=str(root), tracking_uri=None)
    registry = Registry(settings.resolved_tracking_uri, settings.model_name, settings.artifact_root)
    return World(Folder(str(root)), registry)


def _months(world: World) -> pl.DataFrame:
    """Encounters of the pooled batches, in file order."""
    settings = Settings()
    fetch(world.storage, settings.raw_data, settings.dataset_url, None, lambda _received, _total: None)
    validate(world.storage, PARAMS.validation)
    cohort = select_cohort(read_table(world.storage, layout.VALIDATED))
    return pl.concat(batches(split_cohort(cohort, PARAMS.split).future, PARAMS.split)[POOLED])


def _with_champion(world: World, months: pl.DataFrame, seed: int) -> World:
    """The months' patients in random order as the dataset of a store, and a model of the initial part in production."""
    people = np.random.default_rng(seed).permutation(months["patient_nbr"].unique().sort().to_numpy())
    order = pl.DataFrame({"patient_nbr": people}).with_row_index("place")
    dealt = months.join(order, on="patient_nbr", maintain_order="left").sort("place", maintain_order=True)
    dealt = dealt.with_columns(encounter_id=pl.int_range(1, pl.len() + 1).cast(months.schema["encounter_id"]))
    files = {layout.VALIDATED: table_bytes(dealt.select(months.columns), layout.VALIDATED)}
    publish(world.storage, layout.VALIDATION_MANIFEST, inputs={}, files=files, result={"synthetic": False})
    split(world.storage, DEALT)
    silent = Progress(lambda *_: None, lambda *_: None)
    trained = train(world.workspace, PARAMS, "lt30", None, silent)
    evaluate(world.workspace, PARAMS, WHO, trained.winner)
    # Past the gate, which these few encounters may not convince: any model can be watched.
    version = world.registry.register(trained.winner, {})
    with tempfile.TemporaryDirectory() as scratch:
        folder = world.registry.download(trained.winner, BUNDLE, Path(scratch))
        bundle = load_bundle(folder)
        keep_bundle(world.storage, folder)
    ledger, subject = read_ledger(world.storage), subject_of(bundle, version.version)
    moves = (version.version, None)
    promoted = drafted(world.workspace, ledger, "promoted", subject, WHO, moves=moves)
    decide(world.workspace, ledger, promoted)
    return world


def _watch(world: World, number: int, scenario: str) -> MonitoringReport:
    """A batch arrives, the outcomes of the one before mature, it is judged, and scored."""
    storage = world.storage
    arrive(storage, PARAMS.scenario, number, scenario, BEGINS)
    if number > 1:
        mature(storage, number - 1)
    judge(world.workspace, PARAMS)
    report = monitor(world.workspace, PARAMS, number)
    score(world.workspace, number, str(read_ledger(storage).production))
    return report


def _delay(world: World, scenario: str) -> Delay:
    """Watch the scenario until there is no batch left."""
    seen = raised = None
    after: list[tuple[bool, bool]] = []
    for number in range(BEGINS, DEALT.batches + 1):
        report = _watch(world, number, scenario)
        until = (number - 1 if SCENARIOS[scenario].needs_outcomes else number) - BEGINS + 1
        if raised is not None:
            after.append((bool(report.reasons), _raised(report)))
        elif until > 0 and _raised(report):
            raised = until
        if seen is None and EXPECTED[scenario].seen(report):
            seen = until
    return Delay(seen, raised, tuple(after))


def _raised(report: MonitoringReport) -> bool:
    return report.alarm is not None and report.alarm.raised


def _copy(world: World, name: str) -> World:
    """A store to go on with apart. Artifacts of runs stay where they are, and are only read."""
    root = world.root.with_name(f"{world.root.name}_{name}")
    shutil.copytree(world.root, root, ignore=shutil.ignore_patterns("mlartifacts"))
    return _world(root)


if __name__ == "__main__":
    main()
