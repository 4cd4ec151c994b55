"""A chat model behind an OpenAI-compatible address on this device (llama-server, Ollama, vLLM)."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from foretaste.language.asking import Asker, Endpoint, EndpointError, Refused

LARGEST_ANSWER = 8
"""Megabytes of one answer."""

FIRST_REFUSED = 24
"""Prompts that may be refused before one was answered: beyond, it is not the prompts."""


class ChatEndpointConfig(Endpoint):
    """An endpoint that answers ``POST {url}/chat/completions``; see ``Endpoint``.

    Prompts hold titles of the history, so an address that is not this device is refused, unless
    ``elsewhere`` allows it.

    Attributes:
        elsewhere: histories may leave the device for this address.
        tokens: of an answer, at most.
        batch: requests that are under way at the same time.
        timeout: seconds for one request.
    """

    kind: Literal["endpoint"] = "endpoint"
    elsewhere: bool = False
    tokens: int = Field(default=96, ge=1)
    batch: int = Field(default=4, ge=1, le=64)
    timeout: float = Field(default=120.0, gt=0)

    @model_validator(mode="after")
    def _here(self) -> ChatEndpointConfig:
        if not self.elsewhere and not is_here(self.url):
            raise ValueError(
                f"{self.url} is not this device, and prompts hold the user's history. Use an "
                "address such as http://127.0.0.1:8080/v1, or set elsewhere = true"
            )
        return self


class Unanswered(EndpointError):
    """An endpoint that did not answer all prompts; ``answers`` by place are those that came."""

    def __init__(self, message: str, answers: dict[int, str | None]) -> None:
        """``answers``: None where the prompt was refused."""
        super().__init__(message)
        self.answers = answers


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
        self._answered, self._refused = False, 0

    def answers(self, prompts: Sequence[str]) -> list[str | None]:
        """An answer to every prompt; None where the endpoint refuses it (too long, say).

        Raises:
            Unanswered: when the endpoint cannot be reached, answers something else, or refuses
                the key, the model, or all of the first ``FIRST_REFUSED`` prompts.
        """
        came: dict[int, str | None] = {}
        failure: EndpointError | None = None
        refusal: Refused | None = None
        with ThreadPoolExecutor(self.config.batch) as threads:
            asked = [threads.submit(self._answer, prompt) for prompt in prompts]
            try:
                for place, answer in enumerate(asked):
                    try:
                        came[place] = answer.result()
                    except Refused as error:
                        came[place], refusal = None, error
                        self._refused += 1
                    except CancelledError:
                        continue
                    except EndpointError as error:
                        failure = failure or error
                        _cancel(asked)
            finally:  # of any other exception too, or it would wait for answers to all prompts
                _cancel(asked)
        if refusal is not None and not self._answered and self._refused >= FIRST_REFUSED:
            failure = failure or EndpointError(f"{refusal} Not one prompt was answered.")
        if failure is not None:
            raise Unanswered(str(failure), came) from failure
        return list(came.values())

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
        except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
            raise EndpointError(
                f"{self.config.url}: the answer is not that of a chat endpoint "
                f"({type(error).__name__}). Check the address."
            ) from error
        self._answered = True
        return text if isinstance(text, str) else ""  # a refusal may have no content


def _cancel(asked: Sequence[Future[str]]) -> None:
    for one in asked:
        one.cancel()


def is_here(url: str) -> bool:
    """Whether an address is of this device, as far as it says itself."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
