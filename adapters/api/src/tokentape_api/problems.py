"""What is answered instead of data, as problem details (RFC 9457), also where the routes are part of another app."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from http import HTTPStatus
from typing import Any, Final

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError, ResponseValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from tokentape.errors import TapeError

MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER_S: Final = 1
_SHOWN: Final = 80

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class Problem(BaseModel):
    """What went wrong, as RFC 9457 has it."""

    type: str = Field("about:blank", description="Always `about:blank`: the status says what it is.")
    title: str = Field(description="The name of the status.")
    status: int
    detail: str = Field(description="One sentence: what, which, and what to do.")


class NotFound(Exception):
    """Nothing answers to what was asked for."""


class Invalid(Exception):
    """A parameter has a value that cannot be used.

    Args:
        name: of the parameter.
        reason: what it has to be.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}.")


class ProblemRoute(APIRoute):
    """A route that answers with problem details whatever its app does with errors."""

    def get_route_handler(self) -> Handler:
        """The handler that FastAPI calls."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except (RequestValidationError, NotFound, Invalid, TapeError, ResponseValidationError) as error:
                return response(*_told(error))

        return answer


async def http_problem(_: Request, error: Exception) -> Response:
    """The answer for what the app itself refuses: an unknown path, another method."""
    if not isinstance(error, HTTPException):
        raise error
    told = {404: "Nothing is at this path; openapi.json names those there are.", 405: "Only GET is answered here."}
    return response(error.status_code, told.get(error.status_code, f"{error.detail}."), error.headers)


def response(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """Problem details as an answer."""
    problem = Problem(type="about:blank", title=HTTPStatus(status).phrase, status=status, detail=detail)
    more = {"Retry-After": str(RETRY_AFTER_S)} if status == HTTPStatus.SERVICE_UNAVAILABLE else {}
    return JSONResponse(problem.model_dump(), status, headers={**(headers or {}), **more}, media_type=MEDIA_TYPE)


def _told(error: Exception) -> tuple[int, str]:
    if isinstance(error, NotFound):
        return HTTPStatus.NOT_FOUND, str(error)
    if isinstance(error, RequestValidationError):
        return HTTPStatus.UNPROCESSABLE_ENTITY, "; ".join(map(_invalid, error.errors())) + "."
    if isinstance(error, Invalid):
        return HTTPStatus.UNPROCESSABLE_ENTITY, str(error)
    if isinstance(error, ResponseValidationError):
        where = ".".join(map(str, error.errors()[0]["loc"][1:]))
        return HTTPStatus.SERVICE_UNAVAILABLE, f"The tape holds a value that tokentape does not write, at {where}."
    return HTTPStatus.SERVICE_UNAVAILABLE, f"{error}."


def _invalid(error: Mapping[str, Any]) -> str:
    name = ".".join(str(step) for step in error["loc"][1:])
    reason = error["msg"][:1].lower() + error["msg"][1:]
    given = error.get("input")
    shown = f", not {str(given)[:_SHOWN]!r}" if isinstance(given, str | int | float) else ""
    return f"{name}: {reason}{shown}"


RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    status: {
        "description": description,
        "content": {MEDIA_TYPE: {"schema": Problem.model_json_schema()}},
    }
    for status, description in {
        404: "Unknown.",
        422: "A parameter has a value that cannot be used.",
        503: "The tape cannot be read now.",
    }.items()
}
