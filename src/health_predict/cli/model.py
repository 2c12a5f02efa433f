"""Commands about models: train, evaluate, promote, rollback, adopt, status."""

from typing import Annotated

import typer

from health_predict.cli.console import Output
from health_predict.cli.opening import settings_of_environment, storage_of, workspace_of, world_of
from health_predict.cli.options import (
    Excluded,
    InSimulation,
    Json,
    OnDataset,
    OnTarget,
    Run,
    families_named,
    fields_named,
)
from health_predict.params import (
    CAPACITIES,
    LIVE_TARGET,
    BundleParams,
    Params,
    PreprocessorParams,
    Protocol,
    SearchParams,
    Target,
)
from health_predict.training.candidates import CANDIDATES

commands = typer.Typer()


@commands.command()
def train(
    families: Annotated[str, typer.Option(help="Comma-separated model families.")] = ",".join(CANDIDATES),
    trials: Annotated[int, typer.Option(min=1, help="Trials per family; the first uses the family's default.")] = (
        SearchParams.trials
    ),
    minutes: Annotated[float | None, typer.Option(min=0.1, help="Longest search per family, minutes.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same models.")] = SearchParams.seed,
    target: OnTarget = "lt30",
    exclude: Excluded = None,
    dataset: OnDataset = None,
    capacity: Annotated[
        float | None,
        typer.Option(
            min=CAPACITIES[0],
            max=CAPACITIES[1],
            help="Share of discharges that the care team can follow up, and that is flagged; by default that of the "
            f"version in production, before the first {BundleParams.capacity:.2f}.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Train again although the inputs are unchanged.")] = False,
    json: Json = False,
) -> None:
    """Tune each model family, export its best model, log all runs to MLflow and name the winner.

    The training data are --dataset or, if omitted, the initial data and all outcomes that have matured since. The
    hold-out for the gate is set aside first, from encounters that production was not trained on. Exit code 99: too few
    such encounters; nothing is trained.
    Trials run on the Ray cluster at RAY_ADDRESS or on a temporary local cluster; a single trial runs in this process.

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
        params = Params(search=search, preprocessor=PreprocessorParams(exclude=fields_named(exclude)))
        workspace = workspace_of(settings)
        chosen = named(dataset) if dataset else INITIAL
        if dataset is None and target == LIVE_TARGET and matured(workspace.storage):
            chosen = assemble(workspace.storage, params, next_assembly(workspace.storage)).dataset
        report = step(workspace, params, target, settings.ray_address, progress, force, chosen, capacity)
    output.result(report, tables.trained)


@commands.command()
def evaluate(
    run: Run = None,
    protocol: Annotated[
        Protocol | None, typer.Option(help="Instead, evaluate a family's defaults on the whole cohort.")
    ] = None,
    family: Annotated[
        str | None,
        typer.Option(help=f"With --protocol: one of {', '.join(CANDIDATES)}; lightgbm by default."),
    ] = None,
    target: Annotated[
        Target | None,
        typer.Option(help="With --protocol: lt30 (readmission within 30 days, the default) or any (at any time)."),
    ] = None,
    exclude: Excluded = None,
    dataset: OnDataset = None,
    json: Json = False,
) -> None:
    """Compare a trained model with the model in production, on the hold-out, which neither model has seen.

    With `--protocol`, evaluate a family on the whole cohort: by patient-grouped cross-validation, or on the last fifth
    after training on the first four.

    Example: `health-predict evaluate --protocol grouped-cv --family lightgbm --json`
    """
    from health_predict.cli import tables  # noqa: PLC0415

    settings, output = settings_of_environment(), Output(json)
    if protocol is None:
        if family or target or exclude:
            raise typer.BadParameter("--family, --target and --exclude go with --protocol: a run has its own")
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
            Params(preprocessor=PreprocessorParams(exclude=fields_named(exclude) or ())),
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
        typer.Option(
            metavar="REASON", help="Promote a model although it was rolled back; the ledger records the reason."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Put an evaluated model into production if the gate accepts it; exit code 99 if the gate declines it.

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
        str | None, typer.Option(metavar="VERSION", help="Version to restore; by default the one before.")
    ] = None,
    if_production: Annotated[
        str | None, typer.Option(metavar="VERSION", help="Roll back only if this version is in production.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Reason, recorded in the ledger.")] = "asked for at the command line",
    allow_rolled_back: Annotated[
        str | None,
        typer.Option(metavar="REASON", help="With --to: restore a version that was itself rolled back."),
    ] = None,
    json: Json = False,
) -> None:
    """Restore an earlier version to production. The version that leaves cannot be promoted again without a reason.

    Safe to repeat: an interrupted rollback is completed and a complete rollback is not repeated. To go back one version
    further, name that version with --to.

    Example: `health-predict rollback --if-production 7 --reason "risks of surgical patients look wrong"`
    """
    from health_predict.cli import tables  # noqa: PLC0415
    from health_predict.steps.model.rollback import rollback as step  # noqa: PLC0415

    settings = settings_of_environment()
    report = step(workspace_of(settings), settings.actor, reason, to, if_production, allow_rolled_back)
    Output(json).result(report, tables.rolled_back)


@commands.command()
def adopt(
    reason: Annotated[str, typer.Option(help="Reason, recorded in the ledger.")],
    source: Annotated[
        str | None,
        typer.Option("--from", help="Storage root with production's training data; by default the previous holder's."),
    ] = None,
    json: Json = False,
) -> None:
    """Make this store's ledger the one that governs the registered model, after a restored backup or a move.

    The version in production stays: the version in this store's ledger or, if the ledger is empty, the version with
    MLflow's alias.

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
    """Show completed steps, the version in production and why, problems, and the next command. Changes nothing.

    Example: `health-predict status`
    """
    from health_predict.cli import tables  # noqa: PLC0415
    from health_predict.steps.model.status import status as step  # noqa: PLC0415

    Output(json).result(step(world_of(settings_of_environment(), simulation)), tables.status)
