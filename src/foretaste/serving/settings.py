"""How a service is run: one frozen model that crosses to worker processes as JSON."""

from __future__ import annotations

import hmac
import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from foretaste.errors import InputError

if TYPE_CHECKING:
    from foretaste.serving.indexing import IndexWish

VARIABLE = "FORETASTE_SERVE"
"""Environment variable with the settings as JSON, for worker processes."""

TOKEN_VARIABLE = "FORETASTE_TOKEN"


class Settings(BaseModel):
    """What ``foretaste serve`` was asked for (``--set serve.FIELD=VALUE`` sets any field).

    Attributes:
        runs: run folders; the first answers requests that name none.
        store: ``memory``, ``lmdb:PATH`` or ``redis://HOST:PORT/DB``; empty for LMDB beside the
            first run.
        host: address to listen on.
        port: TCP port; 0 takes a free one.
        allowed_host: names that requests may be for (their ``Host`` header), such as that of a
            proxy before the service. Without a token, and unless ``host`` is all addresses, only
            these, ``host``, loopback addresses and names without a dot are answered.
        workers: processes.
        token_file: a file that holds the bearer token; without it the token is that of the
            environment variable FORETASTE_TOKEN, or none is asked for.
        watch: load a run again when its folder has changed.
        watch_seconds: between two looks at the folders.
        ttl: seconds after which the state of a user who does nothing is dropped; the log stays.
        log_ttl: seconds after the last event for which the log of a user is kept; without it for
            ever, and only from the log can states be made again.
        store_timeout: Redis: seconds to wait for it (1 by default). After a wait in vain it is
            asked again later, and lists come without it.
        store_sync: LMDB: wait for the disk at every write (it does by default), so that accepted
            events survive a power cut too; without, they survive the death of the process only.
        states: answer from kept states; without it every answer is computed from the history.
        index: ``exact`` reads every item for every list; ``ivf`` and ``hnsw`` (faiss) may miss
            some, which pays above a million items.
        recall: of an index: the share of the exact lists that it shall find. What was measured
            is told by /v1/runs.
        unknown_items: different item ids outside the loaded catalogs that the store keeps by name.
            Of events with further ones it keeps the user and the time, and the item has no name.
        waiting: requests that may wait; one more is answered 429.
        batch: requests that are computed together at most.
        seconds: after which a request that has no answer yet gets 503.
        drain_seconds: for what was accepted to be finished when the service is stopped.
        body_bytes: size of a request's body, at most.
        connections: open at once in a process; beyond it the answer is 503.
        threads: of PyTorch in a process; 0 chooses by the size of the catalog.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    runs: tuple[Path, ...] = Field(min_length=1)
    store: str = ""
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65_535)
    allowed_host: tuple[str, ...] = ()
    workers: int = Field(default=1, ge=1, le=256)
    token_file: Path | None = None
    watch: bool = True
    watch_seconds: float = Field(default=1.0, gt=0, lt=1e9)
    ttl: float | None = Field(default=30 * 86_400.0, gt=0, lt=1e10)
    log_ttl: float | None = Field(default=None, gt=0, lt=1e10)
    store_timeout: float | None = Field(default=None, gt=0, lt=3_600)
    store_sync: bool | None = None
    states: bool = True
    index: Literal["exact", "ivf", "hnsw"] = "exact"
    recall: float = Field(default=0.95, gt=0, le=1)
    unknown_items: int = Field(default=100_000, ge=0)
    waiting: int = Field(default=512, ge=1)
    batch: int = Field(default=64, ge=1)
    seconds: float = Field(default=5.0, gt=0, lt=1e9)
    drain_seconds: int = Field(default=20, ge=0)
    body_bytes: int = Field(default=2**21, ge=1_024)
    connections: int = Field(default=4_096, ge=1)
    threads: int = Field(default=0, ge=0)

    @field_validator("allowed_host")
    @classmethod
    def _named(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if not host or not host.isascii() or set(host) & set(" \t\r\n/*@,"):
                raise ValueError(f'"{host}" is no name of a host; give one such as films.example')
        return hosts

    @classmethod
    def build(cls, values: dict[str, object]) -> Self:
        """Settings from plain values.

        Raises:
            InputError: naming the field and what is wrong with it.
        """
        try:
            settings = cls.model_validate(values)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field = ".".join(str(part) for part in first["loc"])
            known = ", ".join(cls.model_fields)
            raise InputError(
                f'serve.{field} = "{first["input"]}": {first["msg"]}. Fields are: {known}.'
            ) from error
        if settings.store == "memory" and settings.workers > 1:
            raise InputError(
                f"--store memory with --workers {settings.workers}: each process would have users "
                "of its own. Choose --store lmdb:PATH or redis://HOST:PORT/DB."
            )
        redis = settings.store.startswith(("redis://", "rediss://"))
        if settings.store_timeout is not None and not redis:
            raise InputError(
                f"serve.store_timeout = {settings.store_timeout:g}: only of --store redis://..., "
                "others are on this machine. Leave it out."
            )
        if settings.store_sync is not None and not settings.store_url.startswith("lmdb:"):
            raise InputError(
                f"serve.store_sync = {str(settings.store_sync).lower()}: only of --store lmdb:..., "
                "others have no such choice here. Leave it out."
            )
        return settings

    @property
    def store_url(self) -> str:
        """The store; by default LMDB in a folder beside the first run.

        Beside and not inside: a newer run that takes the place of the folder keeps the users.
        """
        first = Path(os.path.abspath(self.runs[0]))
        return self.store or f"lmdb:{first.with_name(first.name + '.store')}"

    @property
    def wish(self) -> IndexWish | None:
        """The index to be built for every run, if any."""
        from foretaste.serving.indexing import IndexWish

        return None if self.index == "exact" else IndexWish(self.index, self.recall)

    def token(self) -> str | None:
        """The bearer token, or None when none is asked for.

        Raises:
            InputError: when the file cannot be read or holds no token, or the variable is blank or
                no UTF-8.
        """
        if self.token_file is None:
            given = os.environ.get(TOKEN_VARIABLE, "")
            if given and not given.strip():
                raise InputError(f"{TOKEN_VARIABLE}: is blank. Put a token there, or unset it.")
            if not is_utf8(given):
                raise InputError(f"{TOKEN_VARIABLE}: is not UTF-8 text. Put another token there.")
            return given.strip() or None
        try:
            token = self.token_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8 text"
            raise InputError(f"{self.token_file}: cannot read the token ({reason}).") from error
        if not token:
            raise InputError(f"{self.token_file}: is empty. Write a token into it.")
        return token

    def to_environment(self) -> dict[str, str]:
        """What a worker process needs to build the same service."""
        return {VARIABLE: self.model_dump_json()}

    @classmethod
    def from_environment(cls) -> Self:
        """What ``to_environment`` gave."""
        return cls.model_validate_json(os.environ[VARIABLE])


def is_utf8(text: str) -> bool:
    """Whether it can be written as UTF-8; bytes of the environment that are none cannot."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def same_token(given: bytes, token: str) -> bool:
    """Whether they are equal, in a time that does not tell how nearly."""
    return hmac.compare_digest(given, token.encode())
