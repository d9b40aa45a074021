"""A door before all of Datasette: nobody gets in without having logged in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .compat import LOGIN, actor_of

if TYPE_CHECKING:
    from datasette.app import Datasette

    from .policy import App, Receive, Scope, Send

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
        if scope["type"] == "lifespan" or scope["path"] == LOGIN or await actor_of(self._datasette, scope, receive):
            await self._app(scope, receive, send)
        else:
            headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store")]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": _SENTENCE})
