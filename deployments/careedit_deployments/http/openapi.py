"""What FastAPI cannot derive from the routes: request bodies that are a form or JSON, the shape of errors, the API key."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pydantic.json_schema import models_json_schema

from careedit_deployments.http.schema import Answer, EditBody, EditFields

FILES = "/v1/images/files/"
"""Prefix of the addresses of results, which need no key."""

_REFS = "#/components/schemas/{model}"
_BINARY = {"type": "string", "format": "binary"}

EDIT_BODIES: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "allOf": [{"$ref": _REFS.format(model="EditForm")}],
            },
            "encoding": {"early_filter": {"contentType": "application/json"}},
        },
        "application/json": {"schema": {"$ref": _REFS.format(model="EditBody")}},
    },
}
"""OpenAPI's request body of the edit route."""


def edit_bodies(
    fields: type[EditFields], body: type[EditBody], *, without: Collection[str] = (), source: bool = True
) -> dict[str, Any]:
    """OpenAPI's request body of a route that takes an edit with more fields, or without some of them.

    `fields` is its form and `body` its JSON. `source`: whether an image must be sent.
    """

    def schema(model: type[EditFields], files: dict[str, Any]) -> dict[str, Any]:
        whole = model.model_json_schema(ref_template=_REFS)
        whole.pop("$defs", None)  # the edit route's schemas are components already
        left_out = {*without, *(() if source else ("images",))}
        kept = {name: field for name, field in whole["properties"].items() if name not in left_out}
        return {**whole, "properties": {**kept, **files}}

    files = {"mask": _BINARY, "image[]": {"type": "array", "items": _BINARY, "maxItems": 16}}
    form = schema(fields, {**files, "image": _BINARY} if source else files)
    content = {
        "multipart/form-data": {"schema": form, "encoding": {"early_filter": {"contentType": "application/json"}}},
        "application/json": {"schema": schema(body, {})},
    }
    return {"required": True, "content": content}


def error_answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's `responses` for errors, which all have the same shape."""
    content = {"application/json": {"schema": {"$ref": _REFS.format(model="ErrorResponse")}}}
    statuses = (*statuses, 408) if 413 in statuses else statuses  # every body has a deadline
    statuses = (*statuses, 403) if 401 in statuses else statuses  # and every key has scopes
    return {status: {"description": _MEANING[status], "content": content} for status in sorted(statuses)}


SCHEME = (
    "A key from `careedit keys add`. GET needs the scope read, other methods need edit; /v1/users and /v1/webhooks need admin, "
    "/v1/arms needs operator. A key without the scope gets 403."
)
"""OpenAPI's description of API keys and their scopes."""

_MEANING = {
    400: "A field is wrong, missing or not supported, an image cannot be read, or the edit costs more than is allowed.",
    401: "The API key is missing or wrong.",
    403: "The API key does not have the scope that this route needs, or the policy of its tenant does not allow the request.",
    404: "The named object does not exist, or belongs to another caller.",
    408: "The body arrived too slowly.",
    409: "The request conflicts with the current state.",
    413: "The body is larger than the limit.",
    415: "The body is compressed.",
    429: "Too many requests; Retry-After says when to try again.",
    500: "An internal error.",
    503: "The server cannot do this now; try again.",
    504: "The deadline has passed.",
}

STREAM: dict[str, Any] = {
    "text/event-stream": {
        "schema": {"type": "object", "properties": {name: {"type": "string"} for name in ("id", "event", "data")}}
    }
}
"""Content of a stream: the schema of one event, whose `data` is JSON."""

EDIT_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The results: JSON, or with `stream` the events image_edit.partial_image, image_edit.candidate and image_edit.completed.",
        "content": STREAM,
    },
    **error_answers(400, 401, 404, 413, 415, 429, 500, 503, 504),
}
"""OpenAPI's responses of the edit route."""


class ErrorDetail(Answer):
    """An error, as OpenAI's API describes it."""

    message: str
    """A sentence that says what is wrong and what to do."""
    type: str
    """OpenAI's class of the error, for example "invalid_request_error"."""
    param: str | None
    """Name of the wrong field; null if no single field is wrong."""
    code: str | None
    """Code of the error for programs, for example "invalid_image"; null if it has none."""


class ErrorResponse(Answer):
    """The body of every error response, in OpenAI's shape."""

    error: ErrorDetail
    """The error: message, type, param and code."""


def add_schemas(document: dict[str, Any], *, key_required: bool) -> dict[str, Any]:
    """Add to an OpenAPI document what FastAPI does not know: the schemas that routes refer to, and the API key."""
    _, generated = models_json_schema(
        [(model, "validation") for model in (EditBody, EditFields, ErrorResponse)], ref_template=_REFS
    )
    schemas = dict(generated["$defs"])
    fields = schemas.pop("EditFields")
    pictures = {
        "image": {**_BINARY, "description": "The source."},
        "image[]": {
            "type": "array",
            "items": _BINARY,
            "maxItems": 16,
            "description": "The source, followed by references.",
        },
        "mask": {**_BINARY, "description": "PNG in the size of the source; where alpha is 0, the source may change."},
        "mask[]": {**_BINARY, "description": "The mask, under the name that some clients use; send one of the two."},
    }
    schemas["EditForm"] = {**fields, "title": "EditForm", "properties": {**fields["properties"], **pictures}}
    document.setdefault("components", {})["securitySchemes"] = {
        "ApiKey": {"type": "http", "scheme": "bearer", "description": SCHEME}
    }
    components = document["components"].setdefault("schemas", {})
    for name, schema in schemas.items():
        components.setdefault(name, schema)
    for unused in ("HTTPValidationError", "ValidationError"):  # FastAPI's own shape of an error, which no route returns
        components.pop(unused, None)
    for path, operations in document.get("paths", {}).items():
        for operation in operations.values():
            operation.get("responses", {}).pop("422", None)
            if path.startswith("/v1/") and not path.startswith(FILES):
                operation["security"] = [{"ApiKey": []}, *([] if key_required else [{}])]
    return document
