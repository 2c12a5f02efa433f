"""Commands about models: train, evaluate, promote, rollback, adopt, status."""

from typing import Annotated

import typer

from health_predict.cli.console import Output
from health_predict.cli.opening import settings_of_environment, storage_of, workspace_of, world_of
from health_predict.cli.options import InSimulation, Json, OnDataset, OnTarget, Run, families_named
from health_predict.params import LIVE_TARGET, Params, Protocol, SearchParams, Target
from health_predict.training.candidates import CANDIDATES

commands = typer.Typer()


@commands.command()
def train(
    families: Annotated[str, typer.Option(help="Comma-separated model families.")] = ",".join(CANDIDATES),
    trials: Annotated[int, typer.Option(min=1, help="Per family; the first is the family's good default.")] = (
        SearchParams.trials
    ),
    minutes: Annotated[float | None, typer.Option(min=0.1, help="Stop searching a family after this long.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same models.")] = SearchParams.seed,
    target: OnTarget = "lt30",
    dataset: OnDataset = None,
    force: Annotated[bool, typer.Option("--force", help="Train again although nothing changed.")] = False,
    json: Json = False,
) -> None:
    """Tune the families, fit and export the best of each, log everything to MLflow, name the winner.

    Trains on --dataset, or on the initial data with all outcomes that have matured since. What the gate will compare
    on is set aside first, from what production has not seen; exit code 99 says, before anything is trained, that there
    is too little.
    Runs on the Ray cluster at RAY_ADDRESS, or on one of its own; a single trial needs none and is fitted here.

    Example: `health-predict train --families lightgbm,xgboost --trials 20`
    """
    from health_predict.cli import tables  # noqa: PLC0415
    from health_predict.steps.loop.assemble import assemble  # noqa: PLC0415
    from health_predict.steps.model.train import train as step  # noqa: PLC0415
    from health_predict.store.batches import matured, next_assembly  # noqa: PLC0415
    from health_predict.store.datasets import INITIAL, named  # noqa: PLC0415

    settings, output = settings_of_environment(), Output(json)
    search = SearchParams(families=families_named(families), trials=trials, minutes=minutes, seed=seed)
    with output.training(search) as progress:
        workspace, params = workspace_of(settings), Params(search=search)
        chosen = named(dataset) if dataset else INITIAL
        if dataset is None and target == LIVE_TARGET and matured(workspace.storage):
            chosen = assemble(workspace.storage, params, next_assembly(workspace.storage)).dataset
        report = step(workspace, params, target, settings.ray_address, progress, force, chosen)
    output.result(report, tables.trained)


@commands.command()
def evaluate(
    run: Run = None,
    protocol: Annotated[
        Protocol | None, typer.Option(help="Study a family's defaults on the whole cohort instead.")
    ] = None,
    family: Annotated[
        str | None,
        typer.Option(help=f"With --protocol: one of {', '.join(CANDIDATES)}; lightgbm if left out."),
    ] = None,
    target: Annotated[
        Target | None,
        typer.Option(help="With --protocol: lt30, readmitted within 30 days, if left out; or any, at any time."),
    ] = None,
    dataset: OnDataset = None,
    json: Json = False,
) -> None:
    """Compare a trained model with the one in production on encounters that neither has seen: those set aside for it.

    With `--protocol`, measure a family on the whole cohort: patient-grouped cross-validation, or the last fifth
    after training on what came before.

    Example: `health-predict evaluate --protocol grouped-cv --family lightgbm --json`
    """
    from health_predict.cli import tables  # noqa: PLC0415

    settings, output = settings_of_environment(), Output(json)
    if protocol is None:
        if family or target:
            raise typer.BadParameter("--family and --target go with --protocol: a run has its own")
        from health_predict.steps.model.evaluate import evaluate as compare  # noqa: PLC0415
        from health_predict.store.datasets import named  # noqa: PLC0415

        chosen = named(dataset) if dataset else None
        report = compare(workspace_of(settings), Params(), settings.actor, run, chosen)
        output.result(report, tables.evaluated)
        return
    if dataset:
        raise typer.BadParameter("--dataset is for a run; with --protocol the whole cohort is used")
    from health_predict.steps.model.study import study  # noqa: PLC0415

    family = family or "lightgbm"
    if family not in CANDIDATES:
        raise typer.BadParameter(f"choose from {', '.join(CANDIDATES)}", param_hint="--family")
    with output.progress("folds") as advance:
        found = study(
            storage_of(settings),
            Params(),
            protocol,
            family,
            target or LIVE_TARGET,
            lambda done, folds: advance(done, folds, ""),
        )
    output.result(found, tables.studied)


@commands.command()
def promote(
    run: Run = None,
    allow_rolled_back: Annotated[
        str | None,
        typer.Option(metavar="REASON", help="Let a model return that was rolled back; the ledger keeps the reason."),
    ] = None,
    json: Json = False,
) -> None:
    """Put an evaluated model into production, if the gate has no objection; exit code 99 if it has.

    Example: `health-predict promote && health-predict serve`
    """
    from health_predict.cli import tables  # noqa: PLC0415
    from health_predict.steps.model.promote import promote as step  # noqa: PLC0415

    settings = settings_of_environment()
    report = step(workspace_of(settings), Params().gate, settings.actor, run, allow_rolled_back)
    Output(json).result(report, tables.promoted)


@commands.command()
def rollback(
    to: Annotated[
        str | None, typer.Option(metavar="VERSION", help="The version to go back to; else the one before.")
    ] = None,
    if_production: Annotated[
        str | None, typer.Option(metavar="VERSION", help="Only if this version is in production; else change nothing.")
    ] = None,
    reason: Annotated[str, typer.Option(help="For the ledger.")] = "asked for at the command line",
    allow_rolled_back: Annotated[
        str | None,
        typer.Option(metavar="REASON", help="With --to: go back to a version that was itself rolled back."),
    ] = None,
    json: Json = False,
) -> None:
    """Put a version into production again that was there before; the one that leaves stays out.

    Safe to repeat: a rollback that was done, or half done, is completed, and not done twice. To go back one version
    further, name it with --to.

    Example: `health-predict rollback --if-production 7 --reason "risks of surgical patients look wrong"`
    """
    from health_predict.cli import tables  # noqa: PLC0415
    from health_predict.steps.model.rollback import rollback as step  # noqa: PLC0415

    settings = settings_of_environment()
    report = step(workspace_of(settings), settings.actor, reason, to, if_production, allow_rolled_back)
    Output(json).result(report, tables.rolled_back)


@commands.command()
def adopt(
    reason: Annotated[str, typer.Option(help="For the ledger.")],
    source: Annotated[
        str | None,
        typer.Option("--from", help="Storage root that has what production was trained on; else the one that held it."),
    ] = None,
    json: Json = False,
) -> None:
    """Let this store speak for the registered model: after a restored backup, or where another store held it.

    What is in production stays: what this store's ledger says, or, where it says nothing, what MLflow's alias does.

    Example: `health-predict adopt --reason "the storage moved to S3"`
    """
    from health_predict.cli import tables  # noqa: PLC0415
    from health_predict.steps.model.adopt import adopt as step  # noqa: PLC0415
    from health_predict.store.storage import open_storage  # noqa: PLC0415
    from health_predict.workspace.production import holder_of  # noqa: PLC0415

    settings = settings_of_environment()
    workspace = workspace_of(settings)
    before = holder_of(workspace.registry)
    other = source or (before.store if before else None)
    report = step(workspace, settings.actor, reason, open_storage(other, settings.s3_endpoint) if other else None)
    Output(json).result(report, tables.adopted)


@commands.command()
def status(simulation: InSimulation = None, json: Json = False) -> None:
    """Show what is done, what is in production and why, what is wrong, and what to do next. Changes nothing.

    Example: `health-predict status`
    """
    from health_predict.cli import tables  # noqa: PLC0415
    from health_predict.steps.model.status import status as step  # noqa: PLC0415

    Output(json).result(step(world_of(settings_of_environment(), simulation)), tables.status)
