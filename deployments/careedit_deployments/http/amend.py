"""Bodies that are an edit's and a little more: what is more is taken out, and the rest is read as an edit is."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from pydantic import BaseModel
from starlette.datastructures import FormData

from careedit_deployments.errors import FieldError
from careedit_deployments.http.schema import EditBody, EditFields

_REFS = "#/components/schemas/{model}"
_FILE = {"type": "string", "format": "binary"}


class Amendment:
    """For `read_edit`: a body without the fields of `take` and with those of `put`.

    `session` is put in where the body has no picture, which only a session's turn may lack.
    """

    def __init__(
        self, *, take: Collection[str], put: Mapping[str, bool] | None = None, session: str | None = None
    ) -> None:
        self._take, self._put = frozenset(take), dict(put or {})
        self._session = {} if session is None else {"session": session}
        self.taken: dict[str, Any] = {}
        """What was taken out, once the body was read."""

    def json(self, data: bytes) -> bytes:
        """The body as JSON; what is not JSON comes as it is, for `read_edit` to refuse."""
        try:
            body = json.loads(data)
        except (ValueError, RecursionError):
            return data
        if not isinstance(body, dict):
            return data
        self.taken = {name: body.pop(name) for name in self._take & body.keys()}
        session = {} if body.get("images") else self._session
        return json.dumps({**body, **self._put, **session}).encode("utf-8", "surrogatepass")

    def form(self, form: FormData) -> FormData:
        """The body as a form."""
        items = form.multi_items()
        for name, value in items:
            if name in self.taken:
                raise FieldError(f"The field {name!r} is given twice; give it once.", name)
            if name in self._take and value != "":
                self.taken[name] = value
        rest = [(name, value) for name, value in items if name not in self._take]
        put = [(name, str(value).lower()) for name, value in self._put.items()]
        has_picture = any(name.startswith("image") and value != "" for name, value in rest)
        session = {} if has_picture else self._session
        return FormData([*rest, *put, *session.items()])


def bodies(more: type[BaseModel], *, without: Collection[str] = (), source: bool = True) -> dict[str, Any]:
    """OpenAPI's request body of an edit with the fields of `more`; `source`: whether a picture must come with it."""
    extra = more.model_json_schema(ref_template=_REFS)["properties"]

    def schema(model: type[BaseModel], pictures: Mapping[str, Any]) -> dict[str, Any]:
        whole = model.model_json_schema(ref_template=_REFS)
        whole.pop("$defs", None)  # the edit route's schemas are components already
        fields = {name: field for name, field in whole["properties"].items() if name not in without}
        if not source:
            fields.pop("images", None)
        return {**whole, "title": f"{model.__name__}With{more.__name__}", "properties": {**fields, **pictures, **extra}}

    files = {"mask": _FILE, "image[]": {"type": "array", "items": _FILE, "maxItems": 16}}
    form = schema(EditFields, {**files, "image": _FILE} if source else files)
    content = {
        "multipart/form-data": {"schema": form, "encoding": {"early_filter": {"contentType": "application/json"}}},
        "application/json": {"schema": schema(EditBody, {})},
    }
    return {"required": True, "content": content}
