"""A baseline's process."""

from __future__ import annotations

import json
import sys

from careedit.errors import InputError
from careedit_deployments.bench.baselines import NAMES, BaselineSettings


def main(name: str, settings: str) -> None:
    """Serve the baseline of that name. Raises `InputError` for one that does not exist."""
    told = BaselineSettings(**json.loads(settings))
    if name == "litserve":
        from careedit_deployments.bench.baselines import lit as server
    elif name == "fastapi":
        from careedit_deployments.bench.baselines import plain as server  # type: ignore[no-redef]
    else:
        raise InputError(f"There is no baseline {name!r}; choose one of {', '.join(NAMES)}.")
    server.run(told)


if __name__ == "__main__":
    main(*sys.argv[1:])
