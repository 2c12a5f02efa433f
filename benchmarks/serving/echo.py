"""The framework's limit: the worker's own app, log and metrics; `/predict` parses the JSON and answers a constant."""

import sys
from pathlib import Path

import msgspec

from health_predict.serving.answers import Prediction
from health_predict.serving.app import Endpoints
from health_predict.serving.contract import read_encounter
from health_predict.serving.gateway import Answer, Receive, read_body
from health_predict.serving.server import Listen, run
from health_predict.serving.service import Call
from health_predict.settings import ServingSettings

CONSTANT = msgspec.json.encode(
    Prediction(
        prediction=1,
        probability_score=0.1740927708312467,
        threshold=0.09624260437624504,
        risk_band="high",
        percentile=85,
        unknown_fields=[],
        outside_cohort=False,
        synthetic=True,
        model_version="0" * 12,
        request_id="0" * 24,
    )
)


class Echo(Endpoints):
    """As the worker, without a model."""

    async def predict(self, receive: Receive, _call: Call) -> Answer:
        read_encounter(await read_body(receive, 65_536))
        return Answer(200, CONSTANT)


if __name__ == "__main__":
    run(Path(), Listen("127.0.0.1", int(sys.argv[1])), ServingSettings(), endpoints=Echo)
