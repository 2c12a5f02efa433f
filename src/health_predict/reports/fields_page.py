"""docs/fields.md: the table of all fields, rendered from the schema by `make fields`."""

import sys

from health_predict.data.field import Field
from health_predict.data.schema import FACTORS, FIELDS

_INTRODUCTION = """# Fields of an encounter

Written by `make fields` from `data/schema.py`; a test compares the two. **Missing**: yes, where a value may be `?` or
empty in a file and null in a request; "may be left out", where a request and a scored file need not have the field.
"""
_HEADER = "| field | meaning | values | unit | missing | read by models |\n|---|---|---|---|---|---|"
_FACTORS = """
## Factors of an explanation

`/explain` adds up contributions by factor. Marked are those that care during the stay or at discharge can influence.
"""


def markdown() -> str:
    """The page: a row for each field, and one for each factor."""
    fields = [f"| {' | '.join(_cells(field))} |" for field in FIELDS]
    factors = [
        f"| {factor.name} | {', '.join(f'`{name}`' for name in factor.fields)} | "
        f"{'yes' if factor.can_be_influenced else ''} |"
        for factor in FACTORS
    ]
    lines = [
        _INTRODUCTION,
        _HEADER,
        *fields,
        _FACTORS,
        "| factor | fields | can be influenced |\n|---|---|---|",
        *factors,
    ]
    return "\n".join(lines) + "\n"


def _cells(field: Field) -> list[str]:
    raw = f" (in the dataset `{field.raw_name}`)" if field.raw_name != field.name else ""
    known = (
        f"; known: {', '.join(map(str, field.codes))}"
        if field.codes and field.kind == "category" and not field.closed
        else ""
    )
    missing = ["yes"] * field.nullable + ["may be left out"] * (not field.required)
    read = "yes" if field.is_clinical and field.feature else "no"
    return [f"`{field.name}`{raw}", field.description, field.rule + known, field.unit, ", ".join(missing) or "no", read]


if __name__ == "__main__":
    sys.stdout.write(markdown())
