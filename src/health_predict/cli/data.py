"""`health-predict data`: the dataset."""

from dataclasses import replace
from datetime import datetime
from typing import Annotated

import typer

from health_predict.cli.console import Output
from health_predict.cli.opening import settings_of_environment, storage_of
from health_predict.cli.options import Json
from health_predict.params import Params, SplitParams

commands = typer.Typer(no_args_is_help=True, help="The dataset: fetch, validate, split.")
intake = typer.Typer(no_args_is_help=True, help="Take in encounters and outcomes of a hospital.")


@commands.command()
def fetch(
    source: Annotated[
        str | None,
        typer.Option("--from", help="Read this zip or CSV file, local or s3://, instead of downloading from UCI."),
    ] = None,
    synthetic: Annotated[
        int | None, typer.Option("--synthetic", min=1_000, help="Generate this number of invented encounters instead.")
    ] = None,
    json: Json = False,
) -> None:
    """Copy the dataset into the storage root.

    A file of your own needs the columns of the public dataset. One more column may hold the day of discharge, as
    2026-01-31, for `data split --by-date`: `discharged_on`, or the name in HEALTH_PREDICT_DISCHARGE_COLUMN.

    Example: `health-predict data fetch --from dataset_diabetes.zip`
    """
    from health_predict.cli import tables  # noqa: PLC0415
    from health_predict.steps.data.fetch import fetch as step  # noqa: PLC0415

    settings, output = settings_of_environment(), Output(json)
    with output.progress("download") as advance:
        report = step(
            storage_of(settings),
            source or settings.raw_data,
            settings.dataset_url,
            synthetic,
            lambda received, total: advance(received, total, "bytes"),
            settings.discharge_column,
        )
    output.result(report, tables.fetched)


@commands.command()
def validate(json: Json = False) -> None:
    """Check every value. Invalid rows are written to a quarantine file, with reasons.

    Example: `health-predict data validate --json`
    """
    from health_predict.cli import tables  # noqa: PLC0415
    from health_predict.steps.data.validate import validate as step  # noqa: PLC0415

    Output(json).result(step(storage_of(settings_of_environment()), Params().validation), tables.validated)


@commands.command()
def split(
    initial_share: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            max=0.99,
            help=f"Share of the cohort, its beginning, for the first model; {SplitParams.initial_share} if left out.",
        ),
    ] = None,
    replay_batches: Annotated[
        int,
        typer.Option(min=0, help="Number of batches for the rest; 0: use the whole cohort for training, no replay."),
    ] = SplitParams.batches,
    by_date: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Order encounters by this column of days, not by row of the file."),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Show the split and write nothing.")] = False,
    json: Json = False,
) -> None:
    """Split the first part of the cohort by patient into train, validation and test; put the rest into batches.

    Rows are assumed to be in order of time. --by-date orders encounters by the day of discharge in a column:
    `discharged_on`, or the name that HEALTH_PREDICT_DISCHARGE_COLUMN had for `data fetch`. An order of rows that
    contradicts these days is refused. --plan shows rows, readmissions and days of discharge in each part, and whether
    the gate can decide.

    Example: `health-predict data split --replay-batches 0 --plan`
    """
    from health_predict.cli import tables  # noqa: PLC0415
    from health_predict.steps.data.split import plan_split  # noqa: PLC0415
    from health_predict.steps.data.split import split as step  # noqa: PLC0415

    if initial_share and not replay_batches:
        raise typer.BadParameter("with --replay-batches 0 all of the cohort is initial", param_hint="--initial-share")
    share = initial_share or SplitParams.initial_share
    params = replace(Params().split, initial_share=share, batches=replay_batches)
    storage = storage_of(settings_of_environment())
    Output(json).result((plan_split if plan else step)(storage, params, by_date=by_date), tables.split)


@intake.command()
def encounters(
    source: Annotated[
        str, typer.Option("--from", help="CSV, TSV (also .gz) or Parquet file, or a folder of parts, local or s3://.")
    ],
    json: Json = False,
) -> None:
    """Take in encounters of any period. New encounters form the next batch of the loop.

    The file is taken in as a whole or not at all; the same file again changes nothing. Invalid rows are set aside with
    reasons, and the report counts every row. If the file has a column `discharged_on` (or the name in
    HEALTH_PREDICT_DISCHARGE_COLUMN) with days as 2026-01-31, outcomes are final 90 days after discharge. The column is
    never a feature.

    Example: `health-predict intake encounters --from march.csv && health-predict loop run`
    """
    from health_predict.cli import tables  # noqa: PLC0415
    from health_predict.steps.data.intake_encounters import intake_encounters  # noqa: PLC0415

    settings = settings_of_environment()
    report = intake_encounters(
        storage_of(settings),
        Params().intake,
        settings.actor,
        source,
        settings.s3_endpoint,
        settings.discharge_column,
    )
    Output(json).result(report, tables.encounters_taken_in)


@intake.command()
def outcomes(
    source: Annotated[
        str, typer.Option("--from", help="CSV or Parquet file, local or s3://, with encounter_id and readmitted.")
    ],
    as_of: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d"],
            help="Day on which the outcomes were known, for rows without a value in the column as_of.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Take in outcomes of encounters: in any order, late, repeated or corrected. The newest statement counts.

    The newest statement is the one of the latest day. A batch matures when the outcomes of 95% of its encounters count;
    the other encounters are left out until theirs count. If the day of discharge is known, `NO` and `>30` count only as
    of 90 days after discharge or later, because earlier a readmission may still happen or be reported.

    The optional column `followed_up` names the follow-up that the risk led to (`none`: no follow-up), and
    `followed_up_on` its day. Models are then trained and evaluated for the risk without follow-up.

    Example: `health-predict intake outcomes --from may.csv --as-of 2026-05-31 && health-predict loop run`
    """
    from health_predict.cli import tables  # noqa: PLC0415
    from health_predict.steps.data.intake_outcomes import intake_outcomes  # noqa: PLC0415

    settings = settings_of_environment()
    day = as_of.date() if as_of else None
    report = intake_outcomes(storage_of(settings), Params().intake, settings.actor, source, day, settings.s3_endpoint)
    Output(json).result(report, tables.outcomes_taken_in)
