"""Commands of the loop: monitor, simulate, and `health-predict loop` with what is due and each of its actions."""

import re
from typing import Annotated, cast

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

commands = typer.Typer()
loop = typer.Typer(no_args_is_help=True, help="The loop: what is due and why, and each of its actions.")
commands.add_typer(loop, name="loop")


@commands.command()
def monitor(
    batch: Annotated[int | None, typer.Option(min=1, help="Number of a batch that has arrived.")] = None,
    current: Annotated[str | None, typer.Option(help="Instead: a CSV or Parquet file, local or s3://.")] = None,
    reference: Annotated[
        str | None, typer.Option(help="With --current: compare with this file, not with what production learnt from.")
    ] = None,
    outcomes: Annotated[
        str | None,
        typer.Option(help="With --current: what became of its encounters, a file with encounter_id and readmitted."),
    ] = None,
    logged: Annotated[
        str | None, typer.Option(metavar="DAY", help="Instead: what the service scored on a day, such as 2026-01-31.")
    ] = None,
    matured: Annotated[
        bool, typer.Option("--matured", help="Instead: outcomes that have matured and were not judged yet.")
    ] = False,
    simulation: InSimulation = None,
    json: Json = False,
) -> None:
    """Judge a batch: have the data, the scores or the outcomes moved? The last line is NO_DRIFT or DRIFT_DETECTED.

    Writes drift.json and report.html, and the numbers to MLflow. A check that cannot run is an error; exit code 99
    says that a batch waits for more encounters to be judged with. Encounters that ended in death or a hospice are left
    out and counted; so are outcomes of those that the model was trained on. What the service scored is read from
    HEALTH_PREDICT_PREDICTION_LOG, or from the storage root where that is not set.

    Example: `health-predict monitor --current march.parquet`
    """
    from health_predict.cli import tables  # noqa: PLC0415
    from health_predict.errors import Declined  # noqa: PLC0415
    from health_predict.steps.loop.judge import judge  # noqa: PLC0415
    from health_predict.steps.loop.monitor import monitor as step  # noqa: PLC0415
    from health_predict.steps.loop.monitor import monitor_file, monitor_logged  # noqa: PLC0415
    from health_predict.workspace.turn import turn  # noqa: PLC0415

    if [batch, current, logged, matured or None].count(None) != 3 or ((reference or outcomes) and not current):
        raise typer.BadParameter(
            "give --batch, --logged, --matured, or --current with or without --reference and --outcomes"
        )
    if logged is not None and not is_day(logged):
        raise typer.BadParameter("give one day as YYYY-MM-DD, such as 2026-01-31", param_hint="--logged")
    settings = settings_of_environment()
    workspace, params = world_of(settings, simulation), Params()
    if matured:
        with turn(workspace.storage, settings.actor):
            found = judge(workspace, params)
        if not found:
            raise Declined("nothing has matured that was not judged before", [])
        Output(json).result(found, tables.judged)
        return
    if batch is not None:
        with turn(workspace.storage, settings.actor):
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
    batches: Annotated[int | None, typer.Option(min=1, help="How many, from the first on; all if left out.")] = None,
    scenario: Annotated[str, typer.Option(help="A drift to inject, by name; docs/monitoring.md has them.")] = "none",
    from_batch: Annotated[int, typer.Option(min=1, help="The first batch with the scenario.")] = 1,
    families: Annotated[str, typer.Option(help="Comma-separated model families to retrain.")] = "lightgbm",
    trials: Annotated[int, typer.Option(min=1, help="Per family and retraining.")] = SearchParams.trials,
    seed: Annotated[int, typer.Option(help="The same seed gives the same decisions.")] = SearchParams.seed,
    api: Annotated[
        bool, typer.Option("--api/--no-api", help="Score through a running service, or in this process.")
    ] = (True),
    restart: Annotated[
        bool, typer.Option("--restart", help="Drop the earlier replay of this name and start over.")
    ] = False,
    name: Annotated[
        str | None, typer.Option(help="Of the replay's world; `replay`, or after the scenario, if left out.")
    ] = None,
    json: Json = False,
) -> None:
    """Replay the future: batches arrive, are judged and scored, outcomes mature, models are retrained and gated.

    A replay is a world of its own, below simulations/: it begins with what is in production, and changes nothing there.
    Stopped anywhere, the same command goes on from there. Writes reports/replay/index.html in its world.

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
    """Say what is due in the loop, and why; nothing is changed.

    With HEALTH_PREDICT_PREDICTION_LOG_KEY, answers of the service whose outcomes are known are due to be judged too.

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
    once: Annotated[bool, typer.Option("--once", help="Do the next action only.")] = False,
    json: Json = False,
) -> None:
    """Do what is due in the loop, action by action, until nothing is: judge, monitor, decide, retrain, gate, score.

    Stopped anywhere, the same command goes on from there. A model that the gate declines is an outcome like others.
    With HEALTH_PREDICT_PREDICTION_LOG_KEY, what the service answered is judged too, into reports/answers/.

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
    """Decide, once a batch was monitored, whether to retrain, to recalibrate or to do nothing.

    Example: `health-predict loop decide --batch 3`
    """
    from health_predict.cli import tables  # noqa: PLC0415
    from health_predict.steps.loop.decide import decide as step  # noqa: PLC0415
    from health_predict.workspace.turn import turn  # noqa: PLC0415

    settings = settings_of_environment()
    with turn(storage := storage_of(settings), settings.actor):
        report = step(storage, Params(), batch)
    Output(json).result(report, tables.decided)


@loop.command()
def assemble(
    batch: Annotated[
        int | None, typer.Option(min=1, help="Use what had matured when this batch arrived; all of it if left out.")
    ] = None,
    json: Json = False,
) -> None:
    """Make the data set of a retraining from everything that has matured: train, validation, and a fresh test part.

    Exit code 99 says that too few outcomes are fresh for the gate to decide on. `train --dataset` takes its name.

    Example: `health-predict loop assemble --json`
    """
    from health_predict.cli import tables  # noqa: PLC0415
    from health_predict.steps.loop.assemble import assemble as step  # noqa: PLC0415
    from health_predict.store.batches import next_assembly  # noqa: PLC0415
    from health_predict.workspace.turn import turn  # noqa: PLC0415

    settings = settings_of_environment()
    storage = storage_of(settings)
    with turn(storage, settings.actor):
        report = step(storage, Params(), batch or next_assembly(storage))
    Output(json).result(report, tables.assembled)


@loop.command()
def recalibrate(batch: BatchNumber, json: Json = False) -> None:
    """Calibrate production's model anew, on the outcomes that had matured when a batch arrived.

    Example: `health-predict loop recalibrate --batch 4 && health-predict evaluate --dataset recalibration_04`
    """
    from health_predict.cli import tables  # noqa: PLC0415
    from health_predict.steps.loop.recalibrate import recalibrate as step  # noqa: PLC0415
    from health_predict.workspace.production import in_production  # noqa: PLC0415
    from health_predict.workspace.turn import turn  # noqa: PLC0415

    settings = settings_of_environment()
    workspace = workspace_of(settings)
    with turn(workspace.storage, settings.actor):
        report = step(workspace, Params(), batch, in_production(workspace.storage))
    Output(json).result(report, tables.recalibrated)


@loop.command()
def score(batch: BatchNumber, json: Json = False) -> None:
    """Score a batch that has arrived with what is in production, and keep the probabilities for when outcomes come.

    Example: `health-predict loop score --batch 3`
    """
    from health_predict.cli import tables  # noqa: PLC0415
    from health_predict.steps.loop.score import score as step  # noqa: PLC0415
    from health_predict.workspace.production import first_version  # noqa: PLC0415
    from health_predict.workspace.turn import turn  # noqa: PLC0415

    settings = settings_of_environment()
    workspace = workspace_of(settings)
    with turn(workspace.storage, settings.actor):
        report = step(workspace, batch, first_version(workspace.storage))
    Output(json).result(report, tables.batch_scored)


@loop.command()
def answers(json: Json = False) -> None:
    """Judge what the service answered, on outcomes that were taken in since: AUROC and O/E, by version and by day.

    `loop run` does it where outcomes are new, and keeps the judgement; this command shows where it stands.

    Reads the prediction log at HEALTH_PREDICT_PREDICTION_LOG, or in the storage root, and needs the key that the log
    was written with, HEALTH_PREDICT_PREDICTION_LOG_KEY: only with it does an outcome find its answer.

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
