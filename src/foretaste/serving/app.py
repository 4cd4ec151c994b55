"""The routes. Each turns a request into a call of the service, and the answer into JSON."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import orjson
from fastapi import FastAPI, Query, Request, Response
from fastapi.exception_handlers import http_exception_handler
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException

import foretaste
from foretaste.errors import InputError
from foretaste.serving import schemas
from foretaste.serving.batching import Closing, Expired, Overloaded
from foretaste.serving.engine import UnknownRun
from foretaste.serving.gate import OPEN, Gate
from foretaste.serving.hosts import names_of_service
from foretaste.serving.limits import ID_BYTES, MOST_MATCHES, QUERY_LETTERS, TOLD_LETTERS
from foretaste.serving.page import INDEX, PageFile, read_page
from foretaste.serving.questions import Answer, Question
from foretaste.serving.service import Service
from foretaste.serving.settings import Settings
from foretaste.serving.stores import Event, StoreError

AGAIN = {"retry-after": "1"}


class AnyText(Convertor[str]):
    """Ids of users in a path: with slashes, with line ends, or empty."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        """As it is."""
        return value

    def to_string(self, value: str) -> str:
        """As it is."""
        return value


register_url_convertor("anytext", AnyText())


class ItemsQuery(BaseModel):
    """What is typed into a search box."""

    model_config = ConfigDict(extra="forbid")

    q: Annotated[str, Field(max_length=QUERY_LETTERS, description="A title, maybe mistyped.")]
    limit: Annotated[int, Field(ge=1, le=MOST_MATCHES, description="Items at most.")] = 10
    run: Annotated[str | None, Field(max_length=ID_BYTES, description="A name of /v1/runs.")] = None


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    known = {
        400: "The request is not what HTTP and JSON allow.",
        401: "No token, or a wrong one.",
        404: "The run is not loaded.",
        408: "The body did not come in time.",
        413: "The body is too large.",
        415: "The body is not called JSON.",
        421: "The service does not answer to this name.",
        422: "A field is wrong.",
        429: "Too many requests wait, or large bodies come. Try again a little later.",
        431: "The headers are too large.",
        503: "The store does not answer, the answer took too long, or the service is ending.",
    }
    return {
        status: {
            "model": schemas.WrongFields if status == 422 else schemas.Problem,
            "description": known[status],
        }
        for status in (400, 401, 408, 413, 421, 429, *statuses)
    }


def build_app(service: Service) -> FastAPI:
    """The ASGI application of a service; it starts and closes the service with itself."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        del app
        service.start()
        yield
        await service.close()

    app = FastAPI(
        title="Foretaste",
        version=foretaste.__version__,
        summary="Lists of items for users, from a trained recommender.",
        docs_url=None,  # they would load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    _add_answers(app, service)
    _add_looks(app, service)
    _add_page(app, read_page())
    _add_errors(app)
    settings = service.settings
    token = settings.token()
    if token is not None:
        _describe_token(app)
    app.add_middleware(
        Gate,
        token=token,
        names=names_of_service(settings, token),
        body_bytes=settings.body_bytes,
        metrics=service.metrics,
    )
    return app


def _describe_token(app: FastAPI) -> None:
    """OpenAPI's word for the token that ``Gate`` asks for."""
    described = app.openapi()  # made once and kept by FastAPI
    described["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    described["security"] = [{"token": []}]
    for path in OPEN:
        for operation in described["paths"].get(path, {}).values():
            operation["security"] = []


def _add_answers(app: FastAPI, service: Service) -> None:
    """What reads or changes the users."""

    @app.post("/v1/events", response_model=schemas.Logged, responses=_problems(415, 422, 503))
    async def log_events(events: schemas.NewEvents) -> Response:
        """Log what users chose, one event or a list.

        The answer comes when the store has them. After a 503 some may be logged all the same.
        """
        begin, now = time.perf_counter(), time.time_ns() // 1_000_000
        new = events if isinstance(events, list) else [events]
        unknown = await service.log(
            [Event(one.user_id, one.item_id, one.milliseconds(now)) for one in new]
        )
        return _json({"accepted": len(new), "unknown": unknown, "ms": _since(begin)})

    @app.post(
        "/v1/recommendations",
        response_model=schemas.Answered,
        responses=_problems(404, 415, 422, 503),
    )
    async def recommend(ask: schemas.Ask) -> Response:
        """The best items for a user or a history."""
        begin = time.perf_counter()
        run = service.engine.run(ask.run).name
        history, times = ask.past()
        question = Question(
            run=run,
            user=ask.user_id,
            history=history,
            times=times,
            k=ask.k,
            exclude_seen=ask.exclude_seen,
            candidates=None if ask.candidates is None else tuple(ask.candidates),
            explain=ask.explain,
        )
        answer = await service.recommend(question)
        return _json(_written(answer, run) | {"ms": _since(begin)})

    @app.delete(
        "/v1/users/{user_id:anytext}",
        response_model=schemas.Forgotten,
        responses=_problems(422, 503),
    )
    async def forget(user_id: schemas.UserId) -> Response:
        """Forget a user: the log and every state."""
        return _json({"forgotten": await service.forget(user_id)})


def _add_looks(app: FastAPI, service: Service) -> None:
    """What only looks."""

    @app.get("/v1/items", response_model=schemas.Found, responses=_problems(404, 422, 503))
    async def find_items(query: Annotated[ItemsQuery, Query()]) -> Response:
        """Items by title, however it is typed."""
        run = service.engine.run(query.run)  # once: a newer one may take its place meanwhile
        ids = run.catalog.item_ids
        found = await service.search(run, query.q, query.limit)
        items = [
            {"item_id": ids[match.item], "title": match.title, "score": match.score}
            for match in found
        ]
        return _json({"items": items})

    @app.get("/v1/runs", response_model=schemas.Runs, responses=_problems())
    async def list_runs() -> Response:
        """What is loaded."""
        runs = service.engine.runs
        return _json({"runs": [_run_info(service, place) for place in range(len(runs))]})

    # Balancers ask with HEAD as well; it is no operation of the API.
    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz", response_model=schemas.Health, responses=_problems())
    async def alive() -> Response:
        """The process lives."""
        return _json({"status": "ok", "reasons": []})

    @app.head("/readyz", include_in_schema=False)
    @app.get(
        "/readyz",
        response_model=schemas.Health,
        responses=_problems() | {503: {"model": schemas.Health, "description": "Not now."}},
    )
    async def ready() -> Response:
        """Models are loaded and the store answers."""
        reasons = await service.problems()
        content = {"status": "unready" if reasons else "ok", "reasons": reasons}
        return _json(content, 503 if reasons else 200)

    @app.get(
        "/metrics",
        response_class=Response,
        responses=_problems() | {200: {"content": {"text/plain": {}}}},
    )
    async def figures() -> Response:
        """Figures for Prometheus."""
        return Response(service.figures(), media_type=service.metrics.content_type)


def _add_page(app: FastAPI, files: dict[str, PageFile]) -> None:
    """Files of the page by their names; no path is ever looked up on the disk."""

    def sender(file: PageFile):
        async def send() -> Response:
            return Response(file.content, headers=file.headers)

        return send

    for name, file in files.items():
        path = "/" if name == INDEX else f"/page/{name}"
        app.add_api_route(path, sender(file), include_in_schema=False)


def _add_errors(app: FastAPI) -> None:
    """What goes wrong, as status codes."""

    def tell(kind: type[Exception], status: int, headers: dict[str, str], detail: str = ""):
        async def answer(request: Request, error: Exception) -> Response:
            del request
            return _json({"detail": detail or str(error)}, status, headers)

        app.add_exception_handler(kind, answer)

    tell(UnknownRun, 404, {})
    tell(Overloaded, 429, AGAIN, "too many requests wait")
    tell(Expired, 503, AGAIN, "the answer took too long")
    tell(Closing, 503, AGAIN, "the service is ending")
    tell(StoreError, 503, AGAIN)
    tell(Exception, 500, {}, "this is our fault; the log of the server says more")

    @app.exception_handler(InputError)
    async def refused(request: Request, error: Exception) -> Response:
        del request
        return _json({"detail": [{"loc": ["body"], "msg": str(error), "type": "input"}]}, 422)

    @app.exception_handler(RequestValidationError)
    async def wrong(request: Request, error: RequestValidationError) -> Response:
        del request
        # Without the input: it may hold what JSON cannot.
        fields = [
            {
                "loc": [_cut(part) for part in one["loc"]],
                "msg": _cut(_why(one), 10 * TOLD_LETTERS),
                "type": one["type"],
            }
            for one in error.errors()[:20]
        ]
        return _json({"detail": fields}, 422)

    @app.exception_handler(HTTPException)
    async def unread(request: Request, error: HTTPException) -> Response:
        cause = error.__cause__
        if error.status_code != 400 or cause is None:
            return await http_exception_handler(request, error)
        if isinstance(cause, UnicodeDecodeError):
            reason = f"is not UTF-8 (at byte {cause.start})"
        elif isinstance(cause, RecursionError):
            reason = "is nested too deeply"
        else:
            reason = f"cannot be read ({cause})"
        return _json({"detail": _cut(f"the JSON of the body {reason}", 10 * TOLD_LETTERS)}, 400)


def _why(error: Any) -> str:
    """What is wrong with a field, or with the JSON as a whole."""
    more = error.get("ctx", {}).get("error", "") if error["type"] == "json_invalid" else ""
    return f"{error['msg']}: {more}" if more else error["msg"]


def _cut(part: str | int, most: int = TOLD_LETTERS) -> str | int:
    """A name or place as it is told: a key may be as long as a body."""
    return part if isinstance(part, int) or len(part) <= most else f"{part[:most]}..."


def _written(answer: Answer, run: str) -> dict[str, Any]:
    written: dict[str, Any] = {
        "items": [
            {"item_id": item_id, "title": title, "score": score}
            for item_id, title, score in answer.items
        ],
        "unknown": answer.unknown,
        "source": answer.source,
        "degraded": answer.degraded,
        "run": run,
        "fingerprint": answer.fingerprint,
        "logged": answer.logged,
        "state_bytes": answer.state_bytes,
    }
    if answer.because is not None:
        written["because"] = [reason._asdict() for reason in answer.because]
    return written


def _run_info(service: Service, place: int) -> dict[str, Any]:
    run = service.engine.runs[place]
    model = run.incremental if service.settings.states else None
    return {
        "name": run.name,
        "model": run.recommender.name,
        "items": len(run.catalog),
        "default": place == 0,
        "incremental": model is not None,
        "record_bytes": 0 if model is None else model.record_bytes,
        "window": 0 if model is None else model.window,
        "recall": 1.0 if run.index is None else run.index.recall,
        "fingerprint": run.fingerprint,
        "loaded": run.loaded.isoformat(timespec="seconds"),
    }


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(content), status, headers, media_type="application/json")


def _since(begin: float) -> float:
    """Milliseconds."""
    return round((time.perf_counter() - begin) * 1_000, 3)


def app_from_environment() -> FastAPI:
    """The application of a worker process, from the settings that its parent left it."""
    return build_app(Service.open(Settings.from_environment()))
