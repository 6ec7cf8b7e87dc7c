"""A second metric for runs of two nights, which a suite names as "two_nights:dull"."""

from careedit_eval.records import Measurement, MetricSpec, Output


class Dull:
    """0 for every edit."""

    needs: frozenset[str] = frozenset()

    def __init__(self, version: int = 1) -> None:
        self.spec = MetricSpec(
            name="dull", outputs=(Output(name="dull", better="higher"),), protocol="test", code_version=version
        )

    def score(self, batch) -> list[Measurement]:
        return [Measurement(values={"dull": 0.0}) for _ in batch]


def dull(**options) -> Dull:
    return Dull(**options)
