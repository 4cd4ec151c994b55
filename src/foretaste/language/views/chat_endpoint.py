"""A chat model behind an OpenAI-compatible address on this device (llama-server, Ollama, vLLM)."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from foretaste.errors import InputError
from foretaste.language.asking import Asker

LARGEST_ANSWER = 8
"""Megabytes of one answer."""


class ChatEndpointConfig(BaseModel):
    """An endpoint that answers ``POST {url}/chat/completions``.

    Attributes:
        url: such as ``http://127.0.0.1:8080/v1``. Prompts hold titles of the history, so an
            address that is not this device is refused, unless ``elsewhere`` allows it.
        model: the name that the endpoint gives its model.
        elsewhere: histories may leave the device for this address.
        api_key_env: the environment variable that holds the key; without it none is sent.
        tokens: of an answer, at most.
        batch: requests that are under way at the same time.
        timeout: seconds for one request.
        tries: of one request, when the endpoint is busy or cannot be reached.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["endpoint"] = "endpoint"
    url: str
    model: str = Field(min_length=1)
    elsewhere: bool = False
    api_key_env: str = "OPENAI_API_KEY"
    tokens: int = Field(default=96, ge=1)
    batch: int = Field(default=4, ge=1, le=64)
    timeout: float = Field(default=120.0, gt=0)
    tries: int = Field(default=4, ge=1)

    @field_validator("url")
    @classmethod
    def _web(cls, url: str) -> str:
        # urllib would open file:// as well.
        if not url.startswith(("http://", "https://")):
            raise ValueError("the endpoint's address must begin with http:// or https://")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _here(self) -> ChatEndpointConfig:
        if not self.elsewhere and not is_here(self.url):
            raise ValueError(
                f"{self.url} is not this device, and prompts hold the user's history. Use an "
                "address such as http://127.0.0.1:8080/v1, or set elsewhere = true"
            )
        return self


class ChatEndpoint:
    """An endpoint that is asked prompt by prompt, a few at a time, at temperature 0."""

    def __init__(self, config: ChatEndpointConfig, *, pause: float = 1.0) -> None:
        """Nothing is asked yet. ``pause``: seconds before the second try, doubled each time."""
        self.config, self.batch = config, 4 * config.batch
        self.identity = f"endpoint {config.url} {config.model} {config.tokens}"
        # No proxy: a proxy of the environment would be told what is asked of this device.
        self._asker = Asker(
            config,
            "chat/completions",
            "answer",
            largest=LARGEST_ANSWER,
            pause=pause,
            proxies=config.elsewhere,
        )

    def answers(self, prompts: Sequence[str]) -> list[str]:
        """An answer to every prompt.

        Raises:
            InputError: when the endpoint cannot be reached, refuses, or answers something else.
        """
        with ThreadPoolExecutor(self.config.batch) as threads:
            return list(threads.map(self._answer, prompts))

    def _answer(self, prompt: str) -> str:
        asked: dict[str, Any] = {
            "model": self.config.model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": self.config.tokens,
            "temperature": 0,
        }
        content = self._asker.post(asked)
        try:
            text = json.loads(content)["choices"][0]["message"]["content"]
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise InputError(
                f"{self.config.url}: the answer is not that of a chat endpoint "
                f"({type(error).__name__}: {' '.join(str(error).split())[:120]}). Check the "
                "address."
            ) from error
        return text if isinstance(text, str) else ""  # a refusal may have no content


def is_here(url: str) -> bool:
    """Whether an address is of this device, as far as it says itself."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
