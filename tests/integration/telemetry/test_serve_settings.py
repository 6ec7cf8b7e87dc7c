"""What is handed to Ray Serve is what Serve 2.60 takes."""

import pytest

from careedit_deployments.config import Telemetry
from careedit_deployments.telemetry.logs import serve_logging
from careedit_deployments.telemetry.tracing import serve_tracing

# Ray's schema uses what pydantic is about to remove; the warning comes once, when it is imported.
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20")


def test_the_settings_for_serves_own_logs_pass_its_schema() -> None:
    from ray.serve.schema import LoggingConfig

    made = LoggingConfig(**serve_logging(Telemetry(log_level="WARNING")))
    assert (made.encoding, made.log_level, made.enable_access_log) == ("JSON", "WARNING", False)


def test_the_settings_for_serves_own_spans_pass_its_schema_and_name_an_exporter_it_takes(monkeypatch) -> None:
    from ray.serve._private.tracing_utils import _load_span_processors
    from ray.serve.schema import TracingConfig

    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:1/v1/traces")
    settings = serve_tracing(Telemetry(otlp_endpoint="http://127.0.0.1:1", sampling=0.5))
    assert settings is not None
    config = TracingConfig(**settings)
    assert (config.enabled, config.sampling_ratio) == (True, 0.5)
    (processor,) = _load_span_processors(config.exporter_import_path, "unused")
    processor.shutdown()
    assert serve_tracing(Telemetry()) is None
