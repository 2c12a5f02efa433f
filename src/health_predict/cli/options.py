"""Options that several commands share, and the checks of their values."""

from datetime import datetime
from typing import Annotated

import typer

from health_predict.data.schema import CLINICAL
from health_predict.params import Family, Target
from health_predict.training.candidates import CANDIDATES

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document on the last line of stdout.")]
Run = Annotated[
    str | None, typer.Argument(help="MLflow run id of a best model; by default the winner of the newest training.")
]
OnTarget = Annotated[
    Target,
    typer.Option("--target", help="lt30: readmission within 30 days. any: at any time, for retrospective study."),
]
FromBundle = Annotated[
    str | None, typer.Option("--bundle", help="Use the bundle at this folder or s3://bucket/prefix, without MLflow.")
]
InSimulation = Annotated[
    str | None,
    typer.Option("--simulation", metavar="NAME", help="Read the store of this simulation instead of production's."),
]
OnDataset = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Data set: `initial`, or the name printed by `loop assemble` or `loop recalibrate`."
    ),
]
Excluded = Annotated[
    str | None,
    typer.Option(
        "--exclude",
        metavar="FIELDS",
        help="Comma-separated fields that the model may not read, for instance race,payer_code; `none`: it reads all. "
        "By default as in the model in production.",
    ),
]
Families = Annotated[str, typer.Option(help="Comma-separated model families.")]
Trials = Annotated[int, typer.Option(min=1, help="Trials per family; the first uses the family's default.")]
Seed = Annotated[int, typer.Option(help="The same seed gives the same models.")]
BatchNumber = Annotated[int, typer.Option("--batch", min=1, help="Number of a batch that has arrived.")]


def fields_named(listed: str | None) -> tuple[str, ...] | None:
    """The fields that a model may not read; `none`: it may read all. None where nothing was said."""
    from health_predict.features.encounters import without  # noqa: PLC0415  # serving alone has no polars

    if listed is None:
        return None
    if listed.strip() == "none":
        return ()
    chosen = tuple(sorted({name.strip().replace("-", "_") for name in listed.split(",") if name.strip()}))
    known = [field.name for field in CLINICAL]
    unknown = [name for name in chosen if name not in known]
    if unknown or not chosen:
        raise typer.BadParameter(
            f"{', '.join(unknown) or 'nothing'} is no field that a model could read; choose from {', '.join(known)}",
            param_hint="--exclude",
        )
    left = without(chosen)
    if not left.number_names or not left.category_names:
        raise typer.BadParameter(
            "a model learns nothing without at least one number and one category: leave out fewer fields",
            param_hint="--exclude",
        )
    return chosen


def families_named(listed: str) -> tuple[Family, ...]:
    chosen = tuple(name.strip() for name in listed.split(",") if name.strip())
    unknown = [name for name in chosen if name not in CANDIDATES]
    if unknown or not chosen:
        raise typer.BadParameter(
            f"{', '.join(unknown) or 'nothing'} is no model family; choose from {', '.join(CANDIDATES)}",
            param_hint="--families",
        )
    return chosen


def is_day(text: str) -> bool:
    try:
        return f"{datetime.strptime(text, '%Y-%m-%d').date():%Y-%m-%d}" == text
    except ValueError:
        return False
