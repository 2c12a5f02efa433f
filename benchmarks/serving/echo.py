"""What a service costs that computes nothing: parse the JSON of an encounter, answer a constant.

`python -m benchmarks.serving.echo fastapi PORT`: an ordinary FastAPI route on uvicorn with uvloop and httptools,
without log or metrics: the framework's limit. `... worker PORT`: the worker with its log and metrics, only without a
model.
"""

import sys
from pathlib import Path
from unittest.mock import patch

import msgspec
import uvicorn
from fastapi import FastAPI, Request, Response

from health_predict.serving.core.answers import Prediction
from health_predict.serving.core.contract import read_encounter
from health_predict.serving.core.service import Call, Service
from health_predict.serving.http import server
from health_predict.settings import ServingSettings

CONSTANT = Prediction(
    prediction=1,
    probability_score=0.1740927708312467,
    threshold=0.09624260437624504,
    risk_band="high",
    percentile=85,
    unknown_fields=[],
    missing_fields=["weight"],
    warnings=[],
    outside_cohort=False,
    synthetic=True,
    model_version="0" * 12,
    bundle_sha256="0" * 64,
    request_id="0" * 24,
)


class Echo(Service):
    """As the worker's, without a model."""

    async def predict(self, body: bytes, call: Call) -> Prediction:
        read_encounter(body)
        return CONSTANT


def fastapi_echo() -> FastAPI:
    app = FastAPI()

    @app.post("/predict")
    async def predict(request: Request) -> Response:
        read_encounter(await request.body())
        return Response(msgspec.json.encode(CONSTANT), media_type="application/json")

    return app


if __name__ == "__main__":
    kind, port = sys.argv[1], int(sys.argv[2])
    if kind == "fastapi":
        uvicorn.run(fastapi_echo(), port=port, loop="uvloop", http="httptools", access_log=False, log_level="warning")
    else:
        with patch.object(server, "Service", Echo):
            server.run(Path(), server.Listen("127.0.0.1", port), ServingSettings())
