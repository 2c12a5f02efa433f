"""The FastAPI application: which path does what, and the OpenAPI document that says so."""

from collections.abc import Awaitable
from typing import Any

import msgspec
from fastapi import FastAPI
from starlette.routing import Route

from health_predict.serving import answers
from health_predict.serving.contract import EXAMPLE, EncounterModel
from health_predict.serving.docs_page import CONTENT_SECURITY_POLICY, PAGE
from health_predict.serving.gateway import CALL, App, Receive, Scope, Send, answer, read_body
from health_predict.serving.service import Service

DESCRIPTION = (
    "Risk of readmission within 30 days for patients with diabetes, at discharge. Keys of an encounter may be written "
    "with hyphens or underscores. Unknown keys, repeated keys and values outside a closed code set are refused; an "
    "unknown race, payer, specialty, diagnosis or administrative code is scored as unknown and named in the answer."
)
_ENCODE = msgspec.json.Encoder().encode
_SCHEMAS = (
    answers.Prediction, answers.Refusal, answers.Batch, answers.Explanation, answers.ModelDescription, answers.Health,
    answers.Error, answers.ValidationError,
)  # fmt: skip


class Endpoints:
    """One plain ASGI application per path."""

    def __init__(self, service: Service, body_limit: int, batch_body_limit: int, with_metrics: bool):
        """`with_metrics`: /metrics is on the public port, not on one of its own."""
        self._service, self._limit, self._batch_limit = service, body_limit, batch_body_limit
        self.probe_table: dict[tuple[str, str], App] = {
            ("GET", "/health"): self.health,
            ("GET", "/readyz"): self.health,
            ("GET", "/livez"): self.livez,
            ("GET", "/metrics"): self.metrics,
        }
        self.table: dict[tuple[str, str], App] = {
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

    async def predict(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(receive, self._limit)
        await answer(send, 200, _ENCODE(self._service.predict(body, scope[CALL])))

    async def predict_batch(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(receive, self._batch_limit)
        await answer(send, 200, _ENCODE(await self._service.predict_batch(body, scope[CALL])))

    async def explain(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(receive, self._limit)
        await answer(send, 200, _ENCODE(self._service.explain(body, scope[CALL])))

    async def model(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await answer(send, 200, _ENCODE(self._service.describe_model()))

    async def health(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        health = self._service.health()
        await answer(send, 200 if health.status == "ok" else 503, _ENCODE(health))

    async def livez(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await answer(send, 200, b'{"status":"alive"}')

    async def metrics(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        kind = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
        await _send(send, self._service.metrics.exposition(), kind)

    async def docs(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        policy = (b"content-security-policy", CONTENT_SECURITY_POLICY.encode())
        await _send(send, PAGE.encode(), (b"content-type", b"text/html; charset=utf-8"), policy)


def build_app(endpoints: Endpoints) -> FastAPI:
    """The public routes and their document."""
    app = FastAPI(title="Health Predict", version="1", description=DESCRIPTION, docs_url=None, redoc_url=None)
    document = _openapi(app.title, app.version)
    app.openapi = lambda: document  # type: ignore[method-assign]
    return _with_routes(app, endpoints.table)


def build_probe_app(endpoints: Endpoints) -> FastAPI:
    """What the second port answers: probes and /metrics."""
    return _with_routes(FastAPI(openapi_url=None), endpoints.probe_table)


def _with_routes(app: FastAPI, table: dict[tuple[str, str], App]) -> FastAPI:
    for (method, path), endpoint in table.items():
        app.router.routes.append(Route(path, _Plain(endpoint), methods=[method]))
    return app


class _Plain:
    """Keeps starlette from taking a coroutine function for a request-response endpoint."""

    def __init__(self, endpoint: App):
        self._endpoint = endpoint

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        return self._endpoint(scope, receive, send)


async def _send(send: Send, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})


def _openapi(title: str, version: str) -> dict[str, Any]:
    _, components = msgspec.json.schema_components(_SCHEMAS, ref_template=answers.REFERENCES)
    components["Encounter"] = EncounterModel.model_json_schema()
    encounter = {"$ref": "#/components/schemas/Encounter"}
    many = {"type": "array", "items": {}, "description": "Each as in /predict; a bad one gets its own errors."}
    batch = {"oneOf": [many, {"type": "object", "required": ["encounters"], "properties": {"encounters": many}}]}
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "description": DESCRIPTION},
        "paths": {
            "/predict": {"post": _post("Score one encounter", "Prediction", encounter, dict(EXAMPLE))},
            "/predict/batch": {"post": _post("Score many encounters", "Batch", batch, {"encounters": [dict(EXAMPLE)]})},
            "/explain": {"post": _post("Explain one probability", "Explanation", encounter, dict(EXAMPLE))},
            "/model": {"get": _operation("The model version that answers", "ModelDescription")},
            "/health": {"get": _operation("Ready, or the reason why not", "Health", unready="Health")},
            "/readyz": {"get": _operation("As /health", "Health", unready="Health")},
            "/livez": {"get": {"summary": "The process answers", "responses": {"200": {"description": "Alive"}}}},
        },
        "components": {
            "schemas": components,
            "securitySchemes": {
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
        "security": [{}, {"key": []}, {"bearer": []}],
    }


def _operation(summary: str, schema: str, unready: str = "Error") -> dict[str, Any]:
    return {
        "summary": summary,
        "responses": {
            "200": _response("Answer", schema),
            "401": _response("No valid API key", "Error"),
            "503": _response("Not ready, or too many requests", unready),
        },
    }


def _post(summary: str, schema: str, body: dict[str, Any], example: dict[str, Any]) -> dict[str, Any]:
    operation = _operation(summary, schema)
    operation["requestBody"] = {
        "required": True,
        "content": {"application/json": {"schema": body, "example": example}},
    }
    operation["responses"] |= {
        "408": _response("The request took too long", "Error"),
        "413": _response("The request is too large", "Error"),
        "422": _response("What is wrong, field by field", "ValidationError"),
    }
    return operation


def _response(description: str, schema: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"description": description, "content": content}
