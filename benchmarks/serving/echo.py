"""The framework's limit: a FastAPI app whose plain route parses the same JSON and answers a constant. No log."""

import sys

import msgspec
import uvicorn
from fastapi import FastAPI
from starlette.routing import Route

from health_predict.serving.contract import read_encounter
from health_predict.serving.gateway import answer, read_body

CONSTANT = msgspec.json.encode({"prediction": 0, "probability_score": 0.1, "request_id": "0" * 24})


class Echo:
    async def __call__(self, _scope, receive, send):  # noqa: ANN001
        read_encounter(await read_body(receive, 65536))
        await answer(send, 200, CONSTANT)


def main(port: int) -> None:
    app = FastAPI()
    app.router.routes.insert(0, Route("/predict", Echo(), methods=["POST"]))
    uvicorn.run(app, port=port, loop="uvloop", http="httptools", log_config=None, access_log=False, server_header=False)


if __name__ == "__main__":
    main(int(sys.argv[1]))
