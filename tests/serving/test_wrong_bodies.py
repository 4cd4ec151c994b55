"""A body of many mistakes is told one, soon."""

from __future__ import annotations

import json

import pytest

from .conftest import BODY_LIMIT
from .server_process import Server
from .test_security import post

pytestmark = pytest.mark.usefixtures("lives")


def test_a_body_of_strange_keys_is_told_once_and_stops_nobody(guarded: Server):
    strange = {f"key{number}": 1 for number in range(260)}
    keys = json.dumps(strange).encode()
    events = b"[%s]" % b",".join([keys] * ((BODY_LIMIT - 10) // (len(keys) + 1)))
    wrong = json.dumps([{"user_id": "ann"}] * 1_000).encode()
    ids = json.dumps({"history": [1] * 10_000}).encode()
    for path, body in (
        ("/v1/events", events),
        ("/v1/events", wrong),
        ("/v1/recommendations", keys),
        ("/v1/recommendations", ids),
    ):
        response = post(guarded, path, body)
        assert response.status_code == 422
        assert len(response.json()["detail"]) == 1, response.text[:300]
    assert "has 260 keys" in post(guarded, "/v1/events", events).text
