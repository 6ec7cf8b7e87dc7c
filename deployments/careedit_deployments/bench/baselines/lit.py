"""LitServe as its documentation has it: a `LitAPI` with the editor, one worker per device."""

from __future__ import annotations

import litserve

from careedit.records import EditRequest, EditResult
from careedit_deployments.bench.baselines import BaselineSettings
from careedit_deployments.bench.baselines.wire import ROUTE, answer_of, load, request_of


class EditApi(litserve.LitAPI):  # type: ignore[misc]  # LitServe is untyped
    """One request at a time through decode, predict and encode; a batch cannot mix experts that are merged."""

    def __init__(self, settings: BaselineSettings) -> None:
        super().__init__(api_path=ROUTE)
        self.settings = settings

    def setup(self, device: str) -> None:
        """Load the editor, in the worker's process."""
        self.editor = load(self.settings, device)

    def decode_request(self, request):  # type: ignore[no-untyped-def]  # LitServe takes a type for a schema of JSON
        """The edit that a form asks for."""
        return request_of(request)

    def predict(self, x: EditRequest) -> EditResult:
        """Edit."""
        return self.editor.edit(x)

    def encode_response(self, output):  # type: ignore[no-untyped-def]
        """The pictures, and how they were made."""
        return answer_of(output)


def run(settings: BaselineSettings) -> None:
    """Serve until the process is told to end."""
    server = litserve.LitServer(EditApi(settings), accelerator="auto", timeout=False)
    server.run(host="127.0.0.1", port=settings.port, log_level="warning", generate_client_file=False, pretty_logs=False)
