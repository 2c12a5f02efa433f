"""Builds the OpenAPI document from the routes and the types that they take and return."""

from collections.abc import Iterable
from typing import Any

import msgspec

from health_predict.serving.core import answers
from health_predict.serving.core.contract import DocumentedEncounter
from health_predict.serving.http.routes import Route

DESCRIPTION = (
    "Risk of readmission within 30 days for patients with diabetes, at discharge. Keys of an encounter may be written "
    "with hyphens or underscores. Unknown keys, repeated keys and values outside a closed code set are refused; an "
    "unknown race, payer, specialty, diagnosis or administrative code is scored as unknown and named in the answer."
)
_SECURITY = {
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "bearer": {"type": "http", "scheme": "bearer"},
}
_ERRORS = {
    "401": "No valid API key",
    "500": "A bug; the service's log has it under the request id",
}
_ERRORS_OF_BODIES = {
    "408": "The request took too long",
    "413": "The request is too large",
    "415": "The body is compressed",
    "501": "The body has another transfer coding than chunked",
}


def document(routes: Iterable[Route]) -> dict[str, Any]:
    """The document as JSON values; every type that a described route takes or returns is a component."""
    described = [route for route in routes if route.returns]
    types = {type_: None for route in described for type_ in _types(route)}
    schemas, components = msgspec.json.schema_components(types, ref_template=answers.REFERENCES)
    components[DocumentedEncounter.__name__]["additionalProperties"] = False  # not derived from TypedDicts
    schema_of = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in described:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Health Predict", "version": "1", "description": DESCRIPTION},
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": _SECURITY},
        "security": [{}, *({name: []} for name in _SECURITY)],
    }


def _types(route: Route) -> list[Any]:
    """The types that a route takes and returns."""
    of_body = [route.body.type, answers.ValidationError, answers.Refusal] if route.body else []
    return [route.returns, route.unready, answers.Error, *of_body]


def _operation(route: Route, schema_of: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    def response(description: str, type_: Any) -> dict[str, Any]:
        kind = "text/plain" if type_ is str else "application/json"
        return {"description": description, "content": {kind: {"schema": schema_of[type_]}}}

    errors = _ERRORS | _ERRORS_OF_BODIES if route.body else _ERRORS
    operation: dict[str, Any] = {
        "summary": route.summary,
        "responses": {
            "200": response("Answer", route.returns),
            "503": response("Not ready, or too many requests", route.unready),
            **{status: response(description, answers.Error) for status, description in errors.items()},
        },
    }
    if route.body:
        content = {"application/json": {"schema": schema_of[route.body.type], "example": route.body.example}}
        operation["requestBody"] = {"required": True, "content": content}
        operation["responses"]["422"] = response("What is wrong, field by field", answers.ValidationError)
    return operation
