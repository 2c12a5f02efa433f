"""Commands of the loop: monitor, simulate, and `health-predict loop` with what is due and each of its actions."""

import re
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Annotated, cast

import typer

from health_predict.cli.console import Output
from health_predict.cli.opening import (
    answer_log_of,
    prediction_log_of,
    settings_of_environment,
    storage_of,
    workspace_of,
    world_of,
)
from health_predict.cli.options import BatchNumber, Families, InSimulation, Json, Seed, Trials, families_named, is_day
from health_predict.params import Params, SearchParams

if TYPE_CHECKING:
    from health_predict.store.storage import Storage

commands = typer.Typer()
loop = typer.Typer(no_args_is_help=True, help="Show and perform the next actions of the loop.")
commands.add_typer(loop, name="loop")


def _turn(storage: "Storage", who: str) -> AbstractContextManager[object]:
    """The turn of this process at the loop; none where there is no loop: a look at nothing writes nothing."""
    from health_predict.store import layout  # noqa: PLC0415
    from health_predict.workspace.turn import turn  # noqa: PLC0415

    begun = storage.exists(layout.SPLIT_MANIFEST) or storage.exists(layout.INTAKE)
    return turn(storage, who) if begun else nullcontext()


@commands.command()
def monitor(
    batch: Annotated[int | None, typer.Option(min=1, help="Number of a batch that has arrived.")] = None,
    current: Annotated[
        str | None, typer.Option(help="Instead of a batch: CSV or Parquet file of encounters, local or s3://.")
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="With --current: compare with this file, not with production's training data.")
    ] = None,
    outcomes: Annotated[
        str | None,
        typer.Option(help="With --current: file with the outcomes of its encounters (encounter_id, readmitted)."),
    ] = None,
    logged: Annotated[
        str | None,
        typer.Option(
            metavar="DAY", help="Instead of a batch: encounters that the API scored on a day, such as 2026-01-31."
        ),
    ] = None,
    matured: Annotated[
        bool, typer.Option("--matured", help="Instead of a batch: outcomes that matured since the last evaluation.")
    ] = False,
    simulation: InSimulation = None,
    json: Json = False,
) -> None:
    """Test a batch for drift of data, scores and outcomes. The last line is NO_DRIFT or DRIFT_DETECTED.

    Writes drift.json and report.html, and logs the figures to MLflow. A check that cannot run is an error. Exit code
    99: the batch is too small and is tested with the batches that follow. Encounters that ended in death or hospice are
    excluded and counted, as are outcomes of encounters that the model was trained on. --logged reads
    HEALTH_PREDICT_PREDICTION_LOG or, if unset, the storage root.

    Example: `health-predict monitor --current march.parquet`
    """
    from health_predict.cli import tables  # noqa: PLC0415
    from health_predict.errors import Declined  # noqa: PLC0415
    from health_predict.steps.loop.judge import judge  # noqa: PLC0415
    from health_predict.steps.loop.monitor import monitor as step  # noqa: PLC0415
    from health_predict.steps.loop.monitor import monitor_file, monitor_logged  # noqa: PLC0415

    if [batch, current, logged, matured or None].count(None) != 3 or ((reference or outcomes) and not current):
        raise typer.BadParameter(
            "give --batch, --logged, --matured, or --current with or without --reference and --outcomes"
        )
    if logged is not None and not is_day(logged):
        raise typer.BadParameter("give one day as YYYY-MM-DD, such as 2026-01-31", param_hint="--logged")
    settings = settings_of_environment()
    workspace, params = world_of(settings, simulation), Params()
    if matured:
        with _turn(workspace.storage, settings.actor):
            found = judge(workspace, params)
        if not found:
            raise Declined("nothing has matured that was not judged before", [])
        Output(json).result(found, tables.judged)
        return
    if batch is not None:
        with _turn(workspace.storage, settings.actor):
            judge(workspace, params)
            report = step(workspace, params, batch)
    elif logged is not None:
        report = monitor_logged(workspace, params, prediction_log_of(settings), logged)
    else:
        current = cast("str", current)
        endpoint = settings.s3_endpoint
        report = monitor_file(workspace, params, current, reference, outcomes, endpoint)
    Output(json).result(report, tables.monitored)


@commands.command()
def simulate(
    batches: Annotated[
        int | None, typer.Option(min=1, help="Number of batches, from the first; all by default.")
    ] = None,
    scenario: Annotated[
        str, typer.Option(help="Name of a drift scenario to inject; docs/monitoring.md lists them.")
    ] = "none",
    from_batch: Annotated[int, typer.Option(min=1, help="First batch with the scenario.")] = 1,
    families: Annotated[str, typer.Option(help="Comma-separated model families to retrain.")] = "lightgbm",
    trials: Annotated[int, typer.Option(min=1, help="Trials per family and retraining.")] = SearchParams.trials,
    seed: Annotated[int, typer.Option(help="The same seed gives the same decisions.")] = SearchParams.seed,
    api: Annotated[bool, typer.Option("--api/--no-api", help="Score through a running API, or in this process.")] = (
        True
    ),
    restart: Annotated[
        bool, typer.Option("--restart", help="Delete the earlier simulation of this name and start over.")
    ] = False,
    name: Annotated[
        str | None, typer.Option(help="Name of the simulation; by default `replay`, or the scenario's name.")
    ] = None,
    json: Json = False,
) -> None:
    """Replay the later batches: monitor and score each batch, let its outcomes mature, retrain, gate and promote.

    A simulation has its own store below simulations/. It starts from the version in production and leaves production
    unchanged. An interrupted simulation continues with the same command. Writes reports/replay/index.html in its store.

    Example: `health-predict simulate --scenario concept_shift --from-batch 4 --no-api`
    """
    from health_predict.cli import tables  # noqa: PLC0415
    from health_predict.cli.simulate import DEMO_NAME, Options, run  # noqa: PLC0415
    from health_predict.simulation.scenarios import SCENARIOS  # noqa: PLC0415

    if scenario not in SCENARIOS:
        raise typer.BadParameter(f"choose from {', '.join(SCENARIOS)}", param_hint="--scenario")
    if name == DEMO_NAME or (name and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name)):
        raise typer.BadParameter(
            f"letters, digits, `_` and `-` only, at most 64, and not {DEMO_NAME}, which is the demo's",
            param_hint="--name",
        )
    output = Output(json)
    params = Params(search=SearchParams(families=families_named(families), trials=trials, seed=seed))
    options = Options(batches, scenario, from_batch, api, restart, name)
    output.result(run(settings_of_environment(), params, options, output), tables.replayed)


@loop.command("next")
def next_(simulation: InSimulation = None, json: Json = False) -> None:
    """Show the next action of the loop and its reason. Changes nothing.

    If HEALTH_PREDICT_PREDICTION_LOG_KEY is set, predictions of the API whose outcomes are known count as due, too.

    Example: `health-predict loop next --json`
    """
    from health_predict.cli import tables  # noqa: PLC0415
    from health_predict.monitoring.next_action import next_action  # noqa: PLC0415
    from health_predict.store.answered import unjudged_answers  # noqa: PLC0415
    from health_predict.store.loop import read_state  # noqa: PLC0415
    from health_predict.store.simulations import existing_world  # noqa: PLC0415

    settings = settings_of_environment()
    storage = storage_of(settings)
    if simulation is None:
        state = read_state(storage, unjudged_answers(storage, answer_log_of(settings), Params().intake))
    else:
        state = read_state(existing_world(storage, simulation)[0])
    Output(json).result(next_action(state), tables.due)


@loop.command("run")
def run_(
    families: Families = "lightgbm",
    trials: Trials = SearchParams.trials,
    seed: Seed = SearchParams.seed,
    once: Annotated[bool, typer.Option("--once", help="Perform the next action only.")] = False,
    json: Json = False,
) -> None:
    """Perform every due action of the loop: evaluate outcomes, monitor, decide, retrain, gate, score.

    An interrupted run continues with the same command. A model that the gate declines does not end the run.
    If HEALTH_PREDICT_PREDICTION_LOG_KEY is set, predictions of the API are evaluated, too, into reports/answers/.

    Example: `health-predict loop run --trials 1`
    """
    from itertools import islice  # noqa: PLC0415

    from health_predict.cli import tables  # noqa: PLC0415
    from health_predict.cli.run_loop import Loop  # noqa: PLC0415

    settings, output = settings_of_environment(), Output(json)
    params = Params(search=SearchParams(families=families_named(families), trials=trials, seed=seed))
    workspace = workspace_of(settings).for_many_steps()
    found = Loop(settings, params, output, workspace, answer_log_of(settings)).run()
    output.result([due for due, _ in islice(found, 1 if once else None)], tables.done)


@loop.command()
def decide(batch: BatchNumber, json: Json = False) -> None:
    """Decide whether to retrain, to recalibrate or to do nothing, after `monitor` has tested a batch.

    Example: `health-predict loop decide --batch 3`
    """
    from health_predict.cli import tables  # noqa: PLC0415
    from health_predict.steps.loop.decide import decide as step  # noqa: PLC0415

    settings = settings_of_environment()
    with _turn(storage := storage_of(settings), settings.actor):
        report = step(storage, Params(), batch)
    Output(json).result(report, tables.decided)


@loop.command()
def assemble(
    batch: Annotated[
        int | None, typer.Option(min=1, help="Use outcomes that had matured when this batch arrived; all by default.")
    ] = None,
    json: Json = False,
) -> None:
    """Make the data set of a retraining from all matured outcomes: train, validation, and a fresh hold-out as test.

    Exit code 99: the gate needs more fresh outcomes to decide. Give the printed name to `train --dataset`.

    Example: `health-predict loop assemble --json`
    """
    from health_predict.cli import tables  # noqa: PLC0415
    from health_predict.steps.loop.assemble import assemble as step  # noqa: PLC0415
    from health_predict.store.batches import next_assembly  # noqa: PLC0415

    settings = settings_of_environment()
    storage = storage_of(settings)
    with _turn(storage, settings.actor):
        report = step(storage, Params(), batch or next_assembly(storage))
    Output(json).result(report, tables.assembled)


@loop.command()
def recalibrate(batch: BatchNumber, json: Json = False) -> None:
    """Recalibrate the model in production, on the outcomes that had matured when a batch arrived.

    Example: `health-predict loop recalibrate --batch 4 && health-predict evaluate --dataset recalibration_04`
    """
    from health_predict.cli import tables  # noqa: PLC0415
    from health_predict.steps.loop.recalibrate import recalibrate as step  # noqa: PLC0415
    from health_predict.workspace.production import in_production  # noqa: PLC0415

    settings = settings_of_environment()
    workspace = workspace_of(settings)
    with _turn(workspace.storage, settings.actor):
        report = step(workspace, Params(), batch, in_production(workspace.storage))
    Output(json).result(report, tables.recalibrated)


@loop.command()
def score(batch: BatchNumber, json: Json = False) -> None:
    """Score a batch with the model in production, and store the probabilities until the outcomes arrive.

    Example: `health-predict loop score --batch 3`
    """
    from health_predict.cli import tables  # noqa: PLC0415
    from health_predict.steps.loop.score import score as step  # noqa: PLC0415
    from health_predict.workspace.production import first_version  # noqa: PLC0415

    settings = settings_of_environment()
    workspace = workspace_of(settings)
    with _turn(workspace.storage, settings.actor):
        report = step(workspace, batch, first_version(workspace.storage))
    Output(json).result(report, tables.batch_scored)


@loop.command()
def answers(json: Json = False) -> None:
    """Evaluate the API's predictions on the outcomes that are known: AUROC and O/E, by version and by day.

    This command shows the figures and stores nothing; `loop run` stores an evaluation whenever outcomes are new.

    Reads the prediction log at HEALTH_PREDICT_PREDICTION_LOG or, if unset, in the storage root. Requires the key of
    that log, HEALTH_PREDICT_PREDICTION_LOG_KEY, to match outcomes with predictions.

    Example: `health-predict loop answers --json`
    """
    from health_predict.cli import tables  # noqa: PLC0415
    from health_predict.errors import ServiceError  # noqa: PLC0415
    from health_predict.steps.loop.judge_answers import judge_logged_answers  # noqa: PLC0415

    settings = settings_of_environment()
    log = answer_log_of(settings)
    if log.key is None:
        raise ServiceError("HEALTH_PREDICT_PREDICTION_LOG_KEY is not set: the key that the service writes its log with")
    found = judge_logged_answers(storage_of(settings), log.storage, log.key, Params())
    Output(json).result(found, tables.answers_judged)
