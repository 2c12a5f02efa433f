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
intake = typer.Typer(no_args_is_help=True, help="What a hospital hands over: encounters, and what became of them.")


@commands.command()
def fetch(
    source: Annotated[
        str | None, typer.Option("--from", help="Zip or CSV, local or s3://, instead of the download from UCI.")
    ] = None,
    synthetic: Annotated[
        int | None, typer.Option("--synthetic", min=1_000, help="Invent this many encounters instead.")
    ] = None,
    json: Json = False,
) -> None:
    """Get the dataset into the storage root.

    A file of your own has the columns of the public dataset, and may have one more, `discharged_on` (or what
    HEALTH_PREDICT_DISCHARGE_COLUMN says) with the day of discharge, as 2026-01-31, to divide it by.

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
    """Check every value; rows that cannot be right go to a quarantine file with their reasons.

    Example: `health-predict data validate --json`
    """
    from health_predict.cli import tables  # noqa: PLC0415
    from health_predict.steps.data.validate import validate as step  # noqa: PLC0415

    Output(json).result(step(storage_of(settings_of_environment()), Params().validation), tables.validated)


@commands.command()
def split(
    initial_share: Annotated[
        float,
        typer.Option(min=0.01, max=0.99, help="Share of the cohort, its beginning, for a first model."),
    ] = SplitParams.initial_share,
    replay_batches: Annotated[
        int,
        typer.Option(min=0, help="Batches of the rest; 0: all is labelled history, and nothing is replayed."),
    ] = SplitParams.batches,
    by_date: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Order by this column of days of discharge, not as the file.")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Show what it leads to, and write nothing.")] = False,
    json: Json = False,
) -> None:
    """Divide the cohort: initial train, validation and test by patient, the rest in batches to replay.

    The order of the file is taken for time, or, with --by-date, the days in a column of it (`discharged_on`, or what
    HEALTH_PREDICT_DISCHARGE_COLUMN said when it was fetched). An order that its days contradict is refused. With
    --plan, look first: rows, readmissions and days of each part, and whether the gate could decide.

    Example: `health-predict data split --replay-batches 0 --plan`
    """
    from health_predict.cli import tables  # noqa: PLC0415
    from health_predict.steps.data.split import plan_split  # noqa: PLC0415
    from health_predict.steps.data.split import split as step  # noqa: PLC0415

    params = replace(Params().split, initial_share=initial_share, batches=replay_batches)
    storage = storage_of(settings_of_environment())
    Output(json).result((plan_split if plan else step)(storage, params, by_date=by_date), tables.split)


@intake.command()
def encounters(
    source: Annotated[
        str, typer.Option("--from", help="CSV, TSV (also .gz) or Parquet file, or a folder of parts, local or s3://.")
    ],
    json: Json = False,
) -> None:
    """Take in encounters of any period; those that had not arrived before are the next batch of the loop.

    All of the file is taken in or nothing; the same file again changes nothing. Rows that do not fit are set aside with
    their reasons, and every row is accounted for. With a column `discharged_on` (or HEALTH_PREDICT_DISCHARGE_COLUMN) of
    days as 2026-01-31, outcomes count from 90 days after discharge on; it is never a feature.

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
        str, typer.Option("--from", help="CSV or Parquet file, local or s3://: encounter_id, readmitted, as_of if any.")
    ],
    as_of: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="Day that rows without an as_of of their own speak of."),
    ] = None,
    json: Json = False,
) -> None:
    """Take in what became of encounters: in any order, late, twice, or corrected. The newest statement counts.

    The newest is that of the latest day. A batch matures once the outcomes of 95% of its encounters count; the others
    are left out until they do. Where the day of discharge is known, `NO` and `>30` count if they are as of 90 days
    after it or later: before, a readmission could still come, or be reported.

    A column `followed_up` may say what was done because of the risk (`none`: nothing), `followed_up_on` the day: models
    then learn, and are judged on, the risk without it.

    Example: `health-predict intake outcomes --from may.csv --as-of 2026-05-31 && health-predict loop run`
    """
    from health_predict.cli import tables  # noqa: PLC0415
    from health_predict.steps.data.intake_outcomes import intake_outcomes  # noqa: PLC0415

    settings = settings_of_environment()
    day = as_of.date() if as_of else None
    report = intake_outcomes(storage_of(settings), Params().intake, settings.actor, source, day, settings.s3_endpoint)
    Output(json).result(report, tables.outcomes_taken_in)
