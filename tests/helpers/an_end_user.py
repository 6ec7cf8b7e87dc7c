"""What a client does for an end user of a served fake backend."""

from __future__ import annotations

import httpx2

from fake_backend import picture_file

FILES = {"image": ("a.png", picture_file())}


def use(client: httpx2.Client, user: str, words: str) -> tuple[str, str, str]:
    """Make everything that can be made for a user; returns the ids of an edit, the session and the job."""
    body = {"prompt": words, "user": user}
    edit = client.post("/v1/images/edits", files=FILES, data=body).json()["careedit"]["id"]
    client.post("/v1/images/edits", files=FILES, data={**body, "response_format": "url"}).raise_for_status()
    client.post("/v1/feedback", json={"edit": edit, "rating": 2, "comment": words}).raise_for_status()
    session = client.post("/v1/sessions", files=FILES, data={"user": user}).json()["id"]
    client.post(f"/v1/sessions/{session}/turns", json={"prompt": words}).raise_for_status()
    job = client.post("/v1/jobs", files=FILES, data=body).json()["id"]
    while client.get(f"/v1/jobs/{job}").json()["status"] != "completed":
        pass
    return edit, session, job
