"""What the service answers, as types; the OpenAPI document is derived from them."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

REFERENCES = "#/components/schemas/{name}"


def _reference(name: str) -> dict[str, str]:
    return {"$ref": REFERENCES.format(name=name)}


Probability = Annotated[float, Meta(ge=0, le=1)]


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """The risk that this patient is readmitted."""

    prediction: Annotated[int, Meta(ge=0, le=1, description="1 when the probability reaches the threshold, else 0.")]
    probability_score: Annotated[
        Probability, Meta(description="Calibrated probability of a readmission within 30 days.")
    ]
    threshold: Annotated[Probability, Meta(description="Chosen on validation data; stored with the model.")]
    risk_band: Annotated[str, Meta(description="low, moderate, high or very high.")]
    percentile: Annotated[
        int, Meta(ge=0, le=100, description="Percentage of the reference cohort with a lower or equal probability.")
    ]
    unknown_fields: Annotated[list[str], Meta(description="Fields whose value the model does not know.")]
    outside_cohort: Annotated[
        bool, Meta(description="The patient died or went to hospice: the model was not made for this.")
    ]
    synthetic: Annotated[bool, Meta(description="The model was trained on invented data: do not use it.")]
    model_version: str
    request_id: str


class Problem(msgspec.Struct, frozen=True):
    """What is wrong, where; never the value."""

    loc: list[str]
    msg: str
    type: str


class Refusal(msgspec.Struct, frozen=True):
    """One encounter of a batch that cannot be scored."""

    errors: list[Problem]


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Answers in the order of the request."""

    predictions: Annotated[  # a union of two structs has no schema in msgspec
        list[Any], Meta(extra_json_schema={"items": {"oneOf": [_reference("Prediction"), _reference("Refusal")]}})
    ]
    refused: Annotated[int, Meta(ge=0, description="How many encounters were refused.")]
    model_version: str
    request_id: str


class Contribution(msgspec.Struct, frozen=True, kw_only=True):
    """What one clinical factor adds to the probability of the reference patient."""

    factor: str
    contribution: Annotated[float, Meta(description="Of probability; positive raises the risk.")]
    fields: list[str]
    can_be_influenced: Annotated[bool, Meta(description="By care during the stay or at discharge.")]


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Why this probability. It is `reference_probability` and the sum of the contributions.

    A contribution says what the model makes of a factor, not what would happen if the factor were changed.
    """

    probability_score: Probability
    reference_probability: Annotated[Probability, Meta(description="Of a patient typical of the training data.")]
    contributions: Annotated[list[Contribution], Meta(description="Largest first.")]
    missing_fields: list[str]
    unknown_fields: list[str]
    outside_cohort: bool
    synthetic: bool
    model_version: str
    request_id: str


class Reload(msgspec.Struct, frozen=True):
    """The last attempt to take up a bundle."""

    ok: bool
    time: str
    reason: str | None = None


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """`ok` comes with status 200, everything else with 503 and a reason."""

    status: Annotated[str, Meta(description="ok, loading, failed or draining.")]
    reason: str | None = None
    model_name: str | None = None
    model_version: str | None = None
    sha256: str | None = None
    synthetic: bool | None = None
    last_reload: Reload | None = None


class ModelDescription(msgspec.Struct, frozen=True, kw_only=True):
    """The version that answers: where it comes from and how good it is."""

    name: str | None
    version: str
    run_id: str
    sha256: str
    family: str
    target: str
    synthetic: bool
    trained_at: str
    trained_on: list[dict[str, Any]]
    git_revision: str
    threshold: float
    bands: list[dict[str, Any]]
    fields: list[str]
    validation_metrics: dict[str, float]
    evaluation: Annotated[
        dict[str, Any] | None, Meta(description="Metrics with intervals, and by subgroup; null when not evaluated.")
    ]
    reference_encounter: dict[str, str | int | None]


class Error(msgspec.Struct, frozen=True):
    """Why there is no other answer."""

    detail: str
    request_id: str


class ValidationError(msgspec.Struct, frozen=True):
    """What is wrong with the request."""

    detail: list[Problem]
    request_id: str
