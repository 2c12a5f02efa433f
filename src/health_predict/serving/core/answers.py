"""Types of the service's answers; the OpenAPI document is derived from them.

Every field has a description and an example: a test demands both.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from health_predict.data.field import Value

REFERENCES = "#/components/schemas/{name}"
BANDS = ("low", "moderate", "high", "very high")
STATUSES = ("ok", "loading", "failed", "draining")

encode = msgspec.json.Encoder().encode


def _reference(name: str) -> dict[str, str]:
    return {"$ref": REFERENCES.format(name=name)}


def _says(description: str, example: Any, **more: Any) -> Meta:
    return Meta(description=description, examples=[example], **more)


def _probability(description: str, example: float) -> Meta:
    return _says(description, example, ge=0, le=1)


def _one_of(description: str, values: tuple[str, ...], example: str) -> Meta:
    return _says(description, example, extra_json_schema={"enum": list(values)})


RequestId = Annotated[
    str, _says("Names this answer in the logs; also in the header X-Request-ID.", "0f3a92c1d4b5e6f700000001")
]
ModelVersion = Annotated[
    str,
    _says("Version of the model that answered: its number in the registry, else the beginning of its SHA-256.", "3"),
]
Synthetic = Annotated[bool, _says("The model was trained on invented data: do not use it for patients.", False)]
OutsideCohort = Annotated[bool, _says("The patient died or went to hospice: the model was not made for this.", False)]
UnknownFields = Annotated[
    list[str],
    _says("Fields whose value the model does not know; they were scored as unknown.", ["medical_specialty"]),
]
MissingFields = Annotated[
    list[str], _says("Fields of the model that the encounter leaves out or gives as null.", ["weight"])
]
ReferenceChanged = Annotated[
    list[str],
    _says("Fields of the reference patient whose value is not the typical one.", ["number_inpatient", "diag_1"]),
]
Warnings = Annotated[
    list[str],
    _says(
        "Fields that are missing far more often than among the encounters that the model was trained on.",
        ["diag_1 is missing; it is in 0.02% of the training encounters"],
    ),
]
Simulation = Annotated[
    str | None, _says("The replay whose world the model belongs to: not for patients; null for a model in use.", None)
]
Sha256 = Annotated[str, _says("SHA-256 of the model's bundle.json, which names the whole bundle.", "9f86d081" * 8)]


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """The risk that this patient is readmitted."""

    prediction: Annotated[int, _says("1 when the probability reaches the threshold, else 0.", 1, ge=0, le=1)]
    probability_score: Annotated[
        float, _probability("Calibrated probability of a readmission within 30 days of discharge.", 0.213)
    ]
    threshold: Annotated[
        float,
        _probability(
            "Probability from which the prediction is 1, so that as many are flagged as care has capacity for.", 0.148
        ),
    ]
    risk_band: Annotated[
        str,
        _one_of(
            "high and very high are flagged (the prediction is 1), low and moderate are not. Of the reference "
            "cohort's encounters that are not flagged, low has the lower five eighths; of the flagged ones, very high "
            "has the top quarter. /model has the bounds.",
            BANDS,
            "high",
        ),
    ]
    percentile: Annotated[
        int, _says("Percentage of the reference cohort with a lower or equal probability.", 91, ge=0, le=100)
    ]
    unknown_fields: UnknownFields
    missing_fields: MissingFields
    warnings: Warnings
    outside_cohort: OutsideCohort
    synthetic: Synthetic
    model_version: ModelVersion
    bundle_sha256: Sha256
    request_id: RequestId


class Problem(msgspec.Struct, frozen=True):
    """What is wrong, where; never the value."""

    loc: Annotated[
        list[str], _says("`body`, and the field; only `body` where the document is wrong as a whole.", ["body", "age"])
    ]
    msg: Annotated[str, _says("The rule, as a sentence part.", "must be a whole number from 1 to 365")]
    type: Annotated[str, _says("The kind of problem, for programs.", "value")]


class Refusal(msgspec.Struct, frozen=True):
    """One encounter of a batch that cannot be scored."""

    errors: Annotated[
        list[Problem],
        _says("Everything that is wrong with it.", [{"loc": ["body", "age"], "msg": "is missing", "type": "missing"}]),
    ]


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Answers in the order of the request."""

    predictions: Annotated[  # a union of two structs has no schema in msgspec
        list[Any],
        _says(
            "One for each encounter: its prediction, or why it is refused.",
            [{"errors": [{"loc": ["body", "age"], "msg": "is missing", "type": "missing"}]}],
            extra_json_schema={"items": {"oneOf": [_reference("Prediction"), _reference("Refusal")]}},
        ),
    ]
    refused: Annotated[int, _says("How many encounters were refused.", 1, ge=0)]
    unknown: Annotated[
        dict[str, int],
        _says("Of the scored encounters, how many have a value that the model does not know, by field.", {"race": 1}),
    ]
    missing: Annotated[
        dict[str, int], _says("Of the scored encounters, how many have no value, by field.", {"weight": 97})
    ]
    warnings: Annotated[
        list[str],
        _says(
            "Fields that are missing in the batch far more often than in the encounters that the model was trained on.",
            ["diag_1 is missing in 324 of 1000 encounters; it is in 0.02% of the training encounters"],
        ),
    ]
    model_version: ModelVersion
    bundle_sha256: Sha256
    request_id: RequestId


class Contribution(msgspec.Struct, frozen=True, kw_only=True):
    """What one clinical factor adds to the probability of the reference patient."""

    factor: Annotated[str, _says("The factor, in a clinician's words.", "Hospital use in the year before")]
    contribution: Annotated[
        float, _says("What it adds to the probability (0.05 is five percentage points); positive raises it.", 0.052)
    ]
    fields: Annotated[
        list[str],
        _says(
            "Fields of the encounter that make up the factor, of those that the model reads.",
            ["number_outpatient", "number_emergency", "number_inpatient"],
        ),
    ]
    can_be_influenced: Annotated[bool, _says("By care during the stay or at discharge.", False)]


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Why this probability. It is `reference_probability` and the sum of the contributions.

    A contribution says what the model makes of a factor, not what would happen if the factor were changed.
    """

    probability_score: Annotated[float, _probability("As in /predict.", 0.213)]
    reference_probability: Annotated[
        float,
        _probability(
            "Of the reference patient, a patient at the median risk of the reference cohort: typical values, of which "
            "`reference_changed` were changed so that the risk is the median, or as near to it as they bring it.",
            0.094,
        ),
    ]
    reference_changed: ReferenceChanged
    contributions: Annotated[
        list[Contribution],
        _says(
            "Largest first.",
            [
                {
                    "factor": "Hospital use in the year before",
                    "contribution": 0.052,
                    "fields": ["number_outpatient", "number_emergency", "number_inpatient"],
                    "can_be_influenced": False,
                }
            ],
        ),
    ]
    missing_fields: MissingFields
    unknown_fields: UnknownFields
    outside_cohort: OutsideCohort
    synthetic: Synthetic
    model_version: ModelVersion
    bundle_sha256: Sha256
    request_id: RequestId


class Reload(msgspec.Struct, frozen=True):
    """The last attempt to take up a bundle."""

    ok: Annotated[bool, _says("Was it verified and taken up.", True)]
    time: Annotated[str, _says("When; UTC, ISO 8601.", "2024-05-01T06:00:00+00:00")]
    reason: Annotated[str | None, _says("Why it was not taken up; else null.", None)] = None


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """`ok` comes with status 200, everything else with 503 and a reason."""

    status: Annotated[
        str,
        _one_of(
            "ok: a verified model answers. failed: the bundle does not verify. draining: being stopped.", STATUSES, "ok"
        ),
    ]
    reason: Annotated[str | None, _says("Why the status is not ok; else null.", None)] = None
    model_name: Annotated[
        str | None, _says("Name in the registry; null for a bundle from a folder.", "HealthPredict")
    ] = None
    model_version: Annotated[str | None, _says("Version that answers; null without a model.", "3")] = None
    sha256: Annotated[str | None, _says("Of the bundle that answers; null without a model.", "9f86d081" * 8)] = None
    synthetic: Annotated[
        bool | None, _says("The model was trained on invented data: do not use it for patients.", False)
    ] = None
    simulation: Simulation = None
    last_reload: Annotated[
        Reload | None,
        _says(
            "Null before the first attempt; where it failed, the model before goes on answering.",
            {"ok": True, "time": "2024-05-01T06:00:00+00:00", "reason": None},
        ),
    ] = None


class Alive(msgspec.Struct, frozen=True):
    """The process answers, with a model or without."""

    status: Annotated[str, _one_of("Always alive.", ("alive",), "alive")]


class TrainingTable(msgspec.Struct, frozen=True):
    """A table that the model has seen."""

    key: Annotated[str, _says("Its place below the storage root.", "processed_data/initial_train.parquet")]
    rows: Annotated[int, _says("Encounters.", 13_862, ge=0)]
    outcomes: Annotated[int, _says("Encounters with a readmission.", 1_550, ge=0)]
    sha256: Annotated[str, _says("Of the file.", "60303ae2" * 8)]


class BandBound(msgspec.Struct, frozen=True):
    """A risk band; it ends where the next one begins."""

    name: Annotated[str, _one_of("As in `risk_band`.", BANDS, "low")]
    lower: Annotated[float, _probability("The lowest probability in the band.", 0.0)]


class ModelDescription(msgspec.Struct, frozen=True, kw_only=True):
    """The version that answers: where it comes from and how good it is."""

    name: Annotated[str | None, _says("Name in the registry; null for a bundle from a folder.", "HealthPredict")]
    version: Annotated[str, _says("Number in the registry, else the beginning of the bundle's SHA-256.", "3")]
    run_id: Annotated[str, _says("MLflow run that trained it.", "5d41402abc4b2a76b9719d911017c592")]
    sha256: Sha256
    family: Annotated[str, _says("Kind of model.", "lightgbm")]
    target: Annotated[str, _says("lt30: readmitted within 30 days; nothing else is served.", "lt30")]
    simulation: Simulation
    synthetic: Synthetic
    trained_at: Annotated[str, _says("UTC, ISO 8601.", "2024-05-01T05:00:00+00:00")]
    trained_on: Annotated[
        list[TrainingTable],
        _says(
            "Tables that the model has seen.",
            [
                {
                    "key": "processed_data/initial_train.parquet",
                    "rows": 13_862,
                    "outcomes": 1_550,
                    "sha256": "60303ae2" * 8,
                }
            ],
        ),
    ]
    git_revision: Annotated[str, _says("Of the code that trained it.", "5947799")]
    capacity: Annotated[
        float, _probability("Share of discharges that the care team can follow up; it sets the threshold.", 0.2)
    ]
    threshold: Annotated[float, _probability("Probability from which the prediction is 1.", 0.148)]
    bands: Annotated[
        list[BandBound], _says("From low to very high; high begins at the threshold.", [{"name": "low", "lower": 0.0}])
    ]
    fields: Annotated[list[str], _says("Fields that the model reads.", ["time_in_hospital", "age"])]
    excluded: Annotated[
        list[str], _says("Fields that the model was told not to read: accepted in requests, and ignored.", ["race"])
    ]
    validation_metrics: Annotated[
        dict[str, float], _says("Of the validation encounters, by name.", {"val_roc_auc": 0.671})
    ]
    evaluation: Annotated[
        dict[str, Any] | None,
        _says(
            "Metrics on unseen encounters with intervals, on all stays, on eligible index stays and by subgroup, and "
            "what the threshold means for 100 discharges (`operating_point`); null when not evaluated.",
            None,
        ),
    ]
    reference_encounter: Annotated[
        dict[str, Value | None],
        _says(
            "The reference patient that /explain compares with, a patient at the median risk of the reference cohort: "
            "typical values of the training encounters, of which `reference_changed` were changed so that the risk is "
            "the median, or as near to it as they bring it. No patient's encounter.",
            {"age": "[70-80)", "number_inpatient": 1},
        ),
    ]
    reference_changed: ReferenceChanged


class Error(msgspec.Struct, frozen=True):
    """Why there is no other answer."""

    detail: Annotated[str, _says("The reason; nothing of the request.", "a valid API key is needed")]
    request_id: RequestId


class ValidationError(msgspec.Struct, frozen=True):
    """What is wrong with the request."""

    detail: Annotated[
        list[Problem],
        _says("Every problem at once.", [{"loc": ["body", "age"], "msg": "is missing", "type": "missing"}]),
    ]
    request_id: RequestId
