"""A door before all of Datasette: nobody gets in without having logged in."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from .compat import LOGIN, actor_of
from .policy import BASE

if TYPE_CHECKING:
    from datasette.app import Datasette

    from .policy import App, Message, Receive, Scope, Send

_SENTENCE: Final = b"You are not logged in. Whoever started this server has a link that logs in once.\n"


class Login:
    """Datasette, for who has logged in.

    Its own permissions say the same; but some of its pages ask none.

    Args:
        app: Datasette's application.
    """

    def __init__(self, app: App, datasette: Datasette) -> None:
        self._app = app
        self._datasette = datasette

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "lifespan" and scope["path"] == LOGIN:
            await self._app(scope, receive, _leading_to_pages(send))
        elif scope["type"] == "lifespan" or await actor_of(self._datasette, scope, receive):
            await self._app(scope, receive, send)
        else:
            headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store")]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": _SENTENCE})


def _leading_to_pages(send: Send) -> Send:
    """Whoever has logged in lands on our pages; Datasette would lead to its own first one."""

    async def leading(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == HTTPStatus.FOUND:
            headers = [
                (name, BASE.encode() if name.lower() == b"location" else value) for name, value in message["headers"]
            ]
            message = {**message, "headers": headers}
        await send(message)

    return leading
