"""What FastAPI can't read off the edit route by itself, because that route reads its body in two forms: the schema of both."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import models_json_schema

from careedit_deployments.http.schema import Answer, EditBody, EditFields

FILES = "/v1/images/files/"
"""Where results have addresses of their own, and no key is needed."""

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
"""Request body of the edit route."""


def error_answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's `responses` for errors, which all have one shape."""
    content = {"application/json": {"schema": {"$ref": _REFS.format(model="ErrorResponse")}}}
    statuses = (*statuses, 408) if 413 in statuses else statuses  # every body has a deadline
    return {status: {"description": _MEANING[status], "content": content} for status in sorted(statuses)}


_MEANING = {
    400: "A field is wrong, missing or not supported, a picture cannot be read, or the edit costs more than is allowed.",
    401: "The API key is missing or wrong.",
    404: "There is nothing of this name or id, or not for this caller.",
    408: "The body arrived too slowly.",
    409: "It contradicts what is there.",
    413: "The body is larger than the limit.",
    415: "The body is compressed.",
    429: "Too many requests; Retry-After says when to come back.",
    500: "The server failed.",
    503: "Nothing here can do it now.",
    504: "The deadline has passed.",
}

STREAM: dict[str, Any] = {
    "text/event-stream": {
        "schema": {"type": "object", "properties": {name: {"type": "string"} for name in ("id", "event", "data")}}
    }
}
"""Content of a stream: the schema is that of one event, whose `data` is JSON."""

EDIT_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The results: JSON, or with `stream` the events image_edit.partial_image and image_edit.completed.",
        "content": STREAM,
    },
    **error_answers(400, 401, 404, 413, 415, 429, 500, 503, 504),
}
"""Answers of the edit route."""


class ErrorDetail(Answer):
    """What went wrong."""

    message: str
    """A sentence that says what is wrong and what to do."""
    type: str
    """OpenAI's class of error."""
    param: str | None
    """The field that is to blame."""
    code: str | None
    """For programs."""


class ErrorResponse(Answer):
    """Every error, in OpenAI's shape."""

    error: ErrorDetail
    """What went wrong."""


def add_schemas(document: dict[str, Any], *, key_required: bool) -> dict[str, Any]:
    """Put what FastAPI does not know into an OpenAPI document: the schemas that the routes name, and the API key."""
    _, found = models_json_schema(
        [(model, "validation") for model in (EditBody, EditFields, ErrorResponse)], ref_template=_REFS
    )
    schemas = dict(found["$defs"])
    fields = schemas.pop("EditFields")
    pictures = {
        "image": {**_BINARY, "description": "The source."},
        "image[]": {"type": "array", "items": _BINARY, "maxItems": 16, "description": "The source, then references."},
        "mask": {**_BINARY, "description": "PNG of the source's size; where alpha is 0, the source may change."},
        "mask[]": {**_BINARY, "description": "The mask, by the name that some clients give it; one of the two."},
    }
    schemas["EditForm"] = {**fields, "title": "EditForm", "properties": {**fields["properties"], **pictures}}
    document.setdefault("components", {})["securitySchemes"] = {
        "ApiKey": {"type": "http", "scheme": "bearer", "description": "Made by `careedit keys add`."}
    }
    components = document["components"].setdefault("schemas", {})
    for name, schema in schemas.items():
        components.setdefault(name, schema)
    for unused in ("HTTPValidationError", "ValidationError"):  # FastAPI's shape of an error, which no route answers
        components.pop(unused, None)
    for path, operations in document.get("paths", {}).items():
        for operation in operations.values():
            operation.get("responses", {}).pop("422", None)
            if path.startswith("/v1/") and not path.startswith(FILES):
                operation["security"] = [{"ApiKey": []}, *([] if key_required else [{}])]
    return document
