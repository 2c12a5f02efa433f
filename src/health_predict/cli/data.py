"""`health-predict data`: the dataset."""

from typing import Annotated

import typer

from health_predict.cli.console import Output
from health_predict.cli.opening import settings_of_environment, storage_of
from health_predict.cli.options import Json
from health_predict.params import Params

commands = typer.Typer(no_args_is_help=True, help="The dataset: fetch, validate, split.")


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
def split(json: Json = False) -> None:
    """Divide the cohort: initial train, validation and test by patient, the rest in batches to replay.

    Example: `health-predict data split`
    """
    from health_predict.cli import tables  # noqa: PLC0415
    from health_predict.steps.data.split import split as step  # noqa: PLC0415

    Output(json).result(step(storage_of(settings_of_environment()), Params().split), tables.split)
