"""LitServe, used as in its documentation: a `LitAPI` with the editor, one worker per device."""

from __future__ import annotations

import litserve

from careedit.records import EditRequest, EditResult
from careedit_deployments.bench.baselines import BaselineSettings
from careedit_deployments.bench.baselines.wire import ROUTE, answer_of, load, request_of


class EditApi(litserve.LitAPI):  # type: ignore[misc]  # LitServe is untyped
    """Decodes, predicts and encodes one request at a time, because a batch cannot mix merged experts."""

    def __init__(self, settings: BaselineSettings) -> None:
        super().__init__(api_path=ROUTE)
        self.settings = settings

    def setup(self, device: str) -> None:
        """Load the editor in the process of the worker."""
        self.editor = load(self.settings, device)

    def decode_request(self, request):  # type: ignore[no-untyped-def]  # LitServe would read an annotation as a JSON schema
        """The request in a form."""
        return request_of(request)

    def predict(self, x: EditRequest) -> EditResult:
        """Make the edit."""
        return self.editor.edit(x)

    def encode_response(self, output):  # type: ignore[no-untyped-def]
        """The answer with images and traces."""
        return answer_of(output)


def run(settings: BaselineSettings) -> None:
    """Serve until the process is terminated."""
    server = litserve.LitServer(EditApi(settings), accelerator="auto", timeout=False)
    server.run(host="127.0.0.1", port=settings.port, log_level="warning", generate_client_file=False, pretty_logs=False)
