"""A small run to vote on, its voting page, and a rater who needs no browser."""

from __future__ import annotations

import io
import json
import random
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from careedit_eval.runs import Run
from careedit_eval.viewer import ViewedRun
from careedit_eval.voting import Ballots, Vote, VoteTable, make_vote_server
from scripted_eval import arm, finished, suite

SETS = ("zeta", "omega", "sigma")
"""Three sets, the darkest first; their names are in nothing that a rater may see."""
PLAIN = Vote(
    "0" * 32, "run", "ann", "drawn", "s000", 0, "g0", "zeta", "omega", "z" * 64, "o" * 64, None, 1.0, "left", 2.0
)
"""A vote, from which tests make others."""


def painted(folder: Path, *, n: int = 6, name: str = "20261101-one", **fields: Any) -> Run:
    """A finished run of the three sets."""
    sets = [arm(one, by=by) for one, by in zip(SETS, (20, 70, 120), strict=True)]
    return finished(suite(*sets, n=n, **fields), folder, name)


def cast(left: str, right: str, verdict: str, sample: str = "s000", rater: str = "ann", **fields: Any) -> Vote:
    """A vote on a pair of its own."""
    identity = f"{random.getrandbits(128):032x}"
    found = {
        "id": identity, "rater": rater, "sample": sample, "image": sample, "verdict": verdict, "left_set": left,
        "right_set": right, "left_sha256": left[0] * 64, "right_sha256": right[0] * 64,
    }  # fmt: skip
    return replace(PLAIN, **found | fields)


@dataclass
class Page:
    """Asks a running voting page. `seen` has every byte that it sent."""

    port: int
    seen: bytearray

    def ask(
        self, path: str, body: object = None, *, host: str = "localhost", method: str | None = None, **headers: str
    ) -> tuple[int, Any, bytes]:
        """The status, headers and body of an answer; a `body` that is not bytes is sent as JSON."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        sent = {"Host": f"{host}:{self.port}", **({} if data is None else {"Content-Type": "application/json"})}
        connection.request(method or ("GET" if data is None else "POST"), path, data, sent | headers)
        answer = connection.getresponse()
        found = answer.read()
        connection.close()
        self.seen += str(answer.headers).encode() + found
        return answer.status, answer.headers, found

    def post(self, path: str, **fields: object) -> Any:
        status, _, data = self.ask(path, fields)
        assert status == 200, data
        return json.loads(data)

    def pair(self, rater: str = "ann") -> dict[str, Any]:
        return self.post("/api/pair", rater=rater)

    def picture(self, pair: str, place: str) -> np.ndarray:
        status, headers, data = self.ask(f"/picture.png?pair={pair}&place={place}")
        assert (status, headers["Content-Type"]) == (200, "image/png"), data
        return np.asarray(Image.open(io.BytesIO(data)), np.float64)

    def judge(self, pair: str) -> str:
        """The verdict of a rater who likes bright pictures and dislikes noise."""
        left, right = (self.picture(pair, place) for place in ("left", "right"))
        if (left == right).all():
            return "tie"
        noisy = [bool(one.std() > 1) for one in (left, right)]
        brighter = bool(left.mean() > right.mean())
        return "left" if noisy[1] or (brighter and not noisy[0]) else "right"


@contextmanager
def collecting(run: Run | Path, address: str, *sets: str, seed: int = 0, port: int = 0) -> Iterator[Page]:
    """The voting page of a run."""
    folder = run.folder if isinstance(run, Run) else run
    with closing(VoteTable(address)) as table:
        server = make_vote_server(Ballots(ViewedRun(str(folder)), table, sets, rng=random.Random(seed)), port)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield Page(server.server_port, bytearray())
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
