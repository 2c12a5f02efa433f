"""The API: every route is one row here."""

from functools import cache

from health_predict.serving.core import answers
from health_predict.serving.core.contract import EXAMPLE, DocumentedBatch, DocumentedEncounter
from health_predict.serving.core.service import Call, Service
from health_predict.serving.http.docs_page import CONTENT_SECURITY_POLICY, PAGE
from health_predict.serving.http.openapi import document
from health_predict.serving.http.routes import Answer, Body, Responder, Route, headers

_HTML = headers(b"text/html; charset=utf-8", policy=CONTENT_SECURITY_POLICY.encode())
_PROMETHEUS = headers(b"text/plain; version=0.0.4; charset=utf-8")


def public_routes(service: Service, body_limit: int, batch_body_limit: int) -> list[Route]:
    """Routes for callers, the documentation included, without probes and metrics. Limits are in bytes of a body."""
    encounter = Body(DocumentedEncounter, dict(EXAMPLE), body_limit)
    batch = Body(DocumentedBatch, {"encounters": [dict(EXAMPLE)]}, batch_body_limit)

    async def model(_body: bytes, _call: Call) -> object:
        return service.describe_model()

    return [
        Route("POST", "/predict", service.predict, "Score one encounter", answers.Prediction, body=encounter),
        Route("POST", "/predict/batch", service.predict_batch, "Score many encounters", answers.Batch, body=batch),
        Route("POST", "/explain", service.explain, "Explain one probability", answers.Explanation, body=encounter),
        Route("GET", "/model", model, "The model version that answers", answers.ModelDescription),
        Route("GET", "/", _docs, needs_key=False),
        Route("GET", "/docs", _docs, needs_key=False),
    ]


def probe_routes(service: Service) -> list[Route]:
    """Routes for an orchestrator: without keys, and answered however many requests wait."""

    async def health(_body: bytes, _call: Call) -> Answer:
        found = service.health()
        return Answer(200 if found.status == "ok" else 503, answers.encode(found))

    async def livez(_body: bytes, _call: Call) -> object:
        return answers.Alive("alive")

    def probe(path: str, respond: Responder, summary: str, returns: type, unready: type = answers.Error) -> Route:
        return Route("GET", path, respond, summary, returns, unready, needs_key=False, always=True)

    return [
        probe("/health", health, "Ready, or the reason why not", answers.Health, unready=answers.Health),
        probe("/readyz", health, "As /health", answers.Health, unready=answers.Health),
        probe("/livez", livez, "The process answers", answers.Alive),
    ]


def metrics_route(service: Service, needs_key: bool) -> Route:
    """The route for Prometheus."""

    async def metrics(_body: bytes, _call: Call) -> Answer:
        return Answer(200, service.metrics.exposition(), _PROMETHEUS)

    summary = "Counts and times for Prometheus; no value of a request"
    return Route("GET", "/metrics", metrics, summary, str, needs_key=needs_key, always=True)


def with_document(routes: list[Route]) -> list[Route]:
    """The routes, and a route for their OpenAPI document."""

    @cache
    def written() -> bytes:
        return answers.encode(document(routes))

    async def openapi(_body: bytes, _call: Call) -> Answer:
        return Answer(200, written())

    return [*routes, Route("GET", "/openapi.json", openapi, needs_key=False)]


async def _docs(_body: bytes, _call: Call) -> Answer:
    return Answer(200, PAGE.encode(), _HTML)
