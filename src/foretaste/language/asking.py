"""Asking an OpenAI-compatible endpoint: one request, tried again while it is busy."""

from __future__ import annotations

import http.client
import json
import os
import re
import time
import urllib.error
import urllib.request
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from foretaste.errors import SECRET, InputError

ITSELF = (401, 402, 404, 405, 407, 410)
"""What an endpoint says of itself, the key or the model, and not of what it was asked."""

BUSY = (429, 500, 502, 503, 504)
LONGEST_PAUSE = 30.0
"""Seconds between two tries, whatever the endpoint asks for."""
READ_AT_ONCE = 1 << 16


class EndpointError(InputError):
    """An endpoint cannot be reached, refuses, or answers something else."""


class Refused(EndpointError):
    """An endpoint refuses what it was asked (4xx); something else it may answer."""


class Endpoint(BaseModel):
    """Where to ask, and how patiently.

    Attributes:
        url: such as ``http://127.0.0.1:8080/v1``.
        model: the name that the endpoint gives its model.
        api_key_env: the environment variable that holds the key; without it none is sent.
        timeout: seconds for one request.
        tries: of one request, when the endpoint is busy or cannot be reached.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    url: str
    model: str = Field(min_length=1)
    api_key_env: str = "OPENAI_API_KEY"
    timeout: float = Field(default=60.0, gt=0)
    tries: int = Field(default=4, ge=1)

    @field_validator("url")
    @classmethod
    def _web(cls, url: str) -> str:
        # urllib would open file:// as well.
        if not url.startswith(("http://", "https://")):
            raise ValueError("the endpoint's address must begin with http:// or https://")
        if "@" in url.split("/")[2]:
            raise PydanticCustomError(
                SECRET,
                "the address holds a name or password, which would be kept with the run. Leave it "
                "out; a key goes into the environment variable that api_key_env names",
            )
        return url.rstrip("/")

    @field_validator("api_key_env")
    @classmethod
    def _name(cls, name: str) -> str:
        if name and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name, re.ASCII):
            raise PydanticCustomError(
                SECRET,
                "is no name of an environment variable. Give the name of the one that holds the "
                "key, not the key, which would be kept with the run",
            )
        return name


class SameHost(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: urllib would send the key along to whoever is named."""

    def redirect_request(self, *_: Any) -> None:
        """Where a redirect leads is not asked."""
        return None


class Asker:
    """Posts to one path of an endpoint."""

    def __init__(
        self,
        address: Endpoint,
        path: str,
        wanted: str,
        *,
        largest: int,
        pause: float,
        proxies: bool = True,
    ) -> None:
        """Nothing is asked yet.

        Args:
            address: of the endpoint.
            path: below its url, such as ``embeddings``.
            wanted: what it answers with, for messages.
            largest: megabytes of an answer, at most.
            pause: seconds before the second try, doubled each time.
            proxies: whether those of the environment are used, which are then told what is asked.
        """
        self.address, self.path, self.wanted = address, path, wanted
        self.largest, self.pause = largest << 20, pause
        none = [] if proxies else [urllib.request.ProxyHandler({})]
        self._opener = urllib.request.build_opener(SameHost, *none)

    def post(self, asked: dict[str, Any]) -> bytes:
        """The endpoint's answer.

        Raises:
            Refused: when it refuses this question.
            EndpointError: when it cannot be reached, refuses any, or answers too much. Neither
                quotes an answer: an endpoint may say again what it was asked, and an error travels
                where a history must not.
        """
        address, pause, reason, kind = self.address, self.pause, "", EndpointError
        request = self._request(json.dumps(asked).encode())
        for number in range(address.tries):
            if number:
                time.sleep(min(pause, LONGEST_PAUSE))
                pause *= 2
            began = time.monotonic()
            try:
                with self._opener.open(request, timeout=address.timeout) as answer:
                    content = _content(answer, self.largest + 1, began + address.timeout)
            except urllib.error.HTTPError as error:
                error.close()
                reason = _reason_of(error.code)
                if error.code not in BUSY:
                    if 400 <= error.code < 500 and error.code not in ITSELF:
                        kind = Refused
                    break
                pause = max(pause, _asked_pause(error))
            except OSError as error:  # no connection, time over
                reason = str(getattr(error, "reason", None) or error)
            except (ValueError, http.client.HTTPException) as error:
                reason = type(error).__name__  # cut short; what came would be in its text
            else:
                if len(content) > self.largest:
                    size = self.largest >> 20
                    raise EndpointError(f"{address.url}: an answer of more than {size} MB.")
                return content
        raise kind(
            f"{address.url}: no {self.wanted} from {address.model} ({reason}). Check the address, "
            f"the model's name and {address.api_key_env}."
        )

    def _request(self, body: bytes) -> urllib.request.Request:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        key = os.environ.get(self.address.api_key_env)
        if key:
            headers["Authorization"] = f"Bearer {key}"
        return urllib.request.Request(f"{self.address.url}/{self.path}", body, headers)


def _content(answer: http.client.HTTPResponse, most: int, until: float) -> bytes:
    """At most ``most`` bytes of an answer.

    Raises:
        TimeoutError: when they are not here by ``until``. A socket counts its time anew from every
            byte, so an answer that drips would never be over.
        IncompleteRead: when fewer come than were promised.
    """
    promised, content = answer.length, bytearray()
    wanted = most if promised is None else min(most, promised)
    while len(content) < wanted:
        if time.monotonic() > until:
            raise TimeoutError("timed out")
        part = answer.read1(min(wanted - len(content), READ_AT_ONCE))
        if not part:
            break
        content += part
    if promised is not None and len(content) < wanted:
        raise http.client.IncompleteRead(bytes(content), wanted - len(content))
    return bytes(content)


def _reason_of(code: int) -> str:
    """A status with the name that it has everywhere."""
    try:
        return f"HTTP {code} {http.HTTPStatus(code).phrase}"
    except ValueError:
        return f"HTTP {code}"


def _asked_pause(error: urllib.error.HTTPError) -> float:
    """Seconds that a refusal asks to wait; 0 when it does not say."""
    try:
        return float(error.headers.get("Retry-After", 0))
    except ValueError:  # a date
        return 0.0
