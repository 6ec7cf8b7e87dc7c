"""Entry point of the process of a baseline."""

from __future__ import annotations

import json
import sys

from careedit.errors import InputError
from careedit_deployments.bench.baselines import NAMES, BaselineSettings


def main(name: str, settings: str) -> None:
    """Run the baseline `name`. Raises `InputError` for an unknown one."""
    wanted = BaselineSettings(**json.loads(settings))
    if name == "litserve":
        from careedit_deployments.bench.baselines import lit as server
    elif name == "fastapi":
        from careedit_deployments.bench.baselines import plain as server  # type: ignore[no-redef]
    else:
        raise InputError(f"The baseline {name!r} does not exist; choose one of {', '.join(NAMES)}.")
    server.run(wanted)


if __name__ == "__main__":
    main(*sys.argv[1:])
