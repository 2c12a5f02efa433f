"""The FastAPI application: which path does what, and the OpenAPI document that says so."""

from functools import cache
from typing import Any

import msgspec
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from health_predict.serving.core import answers
from health_predict.serving.core.contract import EXAMPLE, encounter_model
from health_predict.serving.core.service import Call, Service
from health_predict.serving.http.docs_page import CONTENT_SECURITY_POLICY, PAGE
from health_predict.serving.http.gateway import CALL, Answer, Endpoint, Receive, Scope, Send, headers, read_body

DESCRIPTION = (
    "Risk of readmission within 30 days for patients with diabetes, at discharge. Keys of an encounter may be written "
    "with hyphens or underscores. Unknown keys, repeated keys and values outside a closed code set are refused; an "
    "unknown race, payer, specialty, diagnosis or administrative code is scored as unknown and named in the answer."
)
_ENCODE = msgspec.json.Encoder().encode
_SCHEMAS = (
    answers.Prediction, answers.Refusal, answers.Batch, answers.Explanation, answers.ModelDescription, answers.Health,
    answers.Alive, answers.Error, answers.ValidationError,
)  # fmt: skip


_METRICS = {"description": "Prometheus text", "content": {"text/plain": {"schema": {"type": "string"}}}}
_HTML = headers(b"text/html; charset=utf-8", policy=CONTENT_SECURITY_POLICY.encode())
_PROMETHEUS = headers(b"text/plain; version=0.0.4; charset=utf-8")


class Endpoints:
    """What answers each path."""

    def __init__(self, service: Service, body_limit: int, batch_body_limit: int, with_metrics: bool):
        """`with_metrics`: /metrics is on the public port, not on one of its own."""
        self._service, self._limit, self._batch_limit = service, body_limit, batch_body_limit
        self.probe_table: dict[tuple[str, str], Endpoint] = {
            ("GET", "/health"): self.health,
            ("GET", "/readyz"): self.health,
            ("GET", "/livez"): self.livez,
            ("GET", "/metrics"): self.metrics,
        }
        self.table: dict[tuple[str, str], Endpoint] = {
            ("POST", "/predict"): self.predict,
            ("POST", "/predict/batch"): self.predict_batch,
            ("POST", "/explain"): self.explain,
            ("GET", "/model"): self.model,
            ("GET", "/docs"): self.docs,
            ("GET", "/"): self.docs,
            **self.probe_table,
        }
        if not with_metrics:
            del self.table["GET", "/metrics"]

    async def predict(self, receive: Receive, call: Call) -> Answer:
        return Answer(200, _ENCODE(await self._service.predict(await read_body(receive, self._limit), call)))

    async def predict_batch(self, receive: Receive, call: Call) -> Answer:
        body = await read_body(receive, self._batch_limit)
        return Answer(200, _ENCODE(await self._service.predict_batch(body, call)))

    async def explain(self, receive: Receive, call: Call) -> Answer:
        return Answer(200, _ENCODE(await self._service.explain(await read_body(receive, self._limit), call)))

    async def model(self, _receive: Receive, _call: Call) -> Answer:
        return Answer(200, _ENCODE(self._service.describe_model()))

    async def health(self, _receive: Receive, _call: Call) -> Answer:
        health = self._service.health()
        return Answer(200 if health.status == "ok" else 503, _ENCODE(health))

    async def livez(self, _receive: Receive, _call: Call) -> Answer:
        return Answer(200, b'{"status":"alive"}')

    async def metrics(self, _receive: Receive, _call: Call) -> Answer:
        return Answer(200, self._service.metrics.exposition(), _PROMETHEUS)

    async def docs(self, _receive: Receive, _call: Call) -> Answer:
        return Answer(200, PAGE.encode(), _HTML)


def build_app(endpoints: Endpoints) -> FastAPI:
    """The public routes and their document, which is made when it is first asked for: it takes 3 MiB."""
    app = FastAPI(
        title="Health Predict",
        version="1",
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would repeat the caller's Host
    )
    paths = {path for _, path in endpoints.table}
    app.openapi = cache(lambda: _openapi(app.title, app.version, paths))  # type: ignore[method-assign]
    return _with_routes(app, endpoints.table)


def build_probe_app(endpoints: Endpoints) -> FastAPI:
    """What the second port answers: probes and /metrics."""
    return _with_routes(FastAPI(openapi_url=None, redirect_slashes=False), endpoints.probe_table)


def _with_routes(app: FastAPI, table: dict[tuple[str, str], Endpoint]) -> FastAPI:
    for (method, path), endpoint in table.items():
        app.router.routes.append(Route(path, _Plain(endpoint), methods=[method]))
    app.add_exception_handler(HTTPException, _no_such_route)
    return app


async def _no_such_route(request: Request, error: Exception) -> Response:
    """404 and 405 in the form of every other error."""
    assert isinstance(error, HTTPException)  # noqa: S101  # it is registered for this one
    body = _ENCODE(answers.Error(error.detail, request.scope[CALL].request_id))
    return Response(body, error.status_code, error.headers, "application/json")


class _Plain:
    """An endpoint as an ASGI application, for what comes through the router: HEAD."""

    def __init__(self, endpoint: Endpoint):
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = await self._endpoint(receive, scope[CALL])
        await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
        await send({"type": "http.response.body", "body": answer.body})


def _openapi(title: str, version: str, answered: set[str]) -> dict[str, Any]:
    """The document; of the paths, those that are answered on this port."""
    _, components = msgspec.json.schema_components(_SCHEMAS, ref_template=answers.REFERENCES)
    components["Encounter"] = encounter_model().model_json_schema()
    encounter = {"$ref": "#/components/schemas/Encounter"}
    many = {"type": "array", "items": {}, "description": "Each as in /predict; a bad one gets its own errors."}
    batch = {"oneOf": [many, {"type": "object", "required": ["encounters"], "properties": {"encounters": many}}]}
    paths = {
        "/predict": {"post": _post("Score one encounter", "Prediction", encounter, dict(EXAMPLE))},
        "/predict/batch": {"post": _post("Score many encounters", "Batch", batch, {"encounters": [dict(EXAMPLE)]})},
        "/explain": {"post": _post("Explain one probability", "Explanation", encounter, dict(EXAMPLE))},
        "/model": {"get": _operation("The model version that answers", _json("Answer", "ModelDescription"))},
        "/health": {"get": _operation("Ready, or the reason why not", _json("Ready", "Health"), unready="Health")},
        "/readyz": {"get": _operation("As /health", _json("Ready", "Health"), unready="Health")},
        "/livez": {"get": _operation("The process answers", _json("Alive", "Alive"))},
        "/metrics": {"get": _operation("Counts and times for Prometheus; no value of a request", _METRICS)},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "description": DESCRIPTION},
        "paths": {path: operations for path, operations in paths.items() if path in answered},
        "components": {
            "schemas": components,
            "securitySchemes": {
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
        "security": [{}, {"key": []}, {"bearer": []}],
    }


def _operation(summary: str, answer: dict[str, Any], unready: str = "Error") -> dict[str, Any]:
    return {
        "summary": summary,
        "responses": {
            "200": answer,
            "401": _json("No valid API key", "Error"),
            "500": _json("A bug; the service's log has it under the request id", "Error"),
            "503": _json("Not ready, or too many requests", unready),
        },
    }


def _post(summary: str, schema: str, body: dict[str, Any], example: dict[str, Any]) -> dict[str, Any]:
    operation = _operation(summary, _json("Answer", schema))
    operation["requestBody"] = {
        "required": True,
        "content": {"application/json": {"schema": body, "example": example}},
    }
    operation["responses"] |= {
        "408": _json("The request took too long", "Error"),
        "413": _json("The request is too large", "Error"),
        "415": _json("The body is compressed", "Error"),
        "422": _json("What is wrong, field by field", "ValidationError"),
    }
    return operation


def _json(description: str, schema: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"description": description, "content": content}
