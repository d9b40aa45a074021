"""What is sent with, or instead of, everything below our paths: who may run scripts there, and for which hosts."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Awaitable, Callable, MutableMapping
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any, Final

from .access import is_asked_for_by_name

if TYPE_CHECKING:
    from datasette.app import Datasette

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

BASE: Final = "/-/tokentape"
PLUGIN: Final = "datasette-tokentape"
_WRONG_HOST: Final = (
    "This address answers to the names of this machine only, such as localhost. "
    f'If a proxy sends another one, list it: {{"plugins": {{"{PLUGIN}": {{"hosts": ["name"]}}}}}}\n'
)
_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
)


class Guard:
    """Datasette with headers on our paths, and with a check of the host that is asked for.

    Args:
        app: Datasette's application.
        everywhere: check the host on all paths, not only on ours.
    """

    def __init__(self, app: App, datasette: Datasette, *, everywhere: bool = False) -> None:
        self._app = app
        self._datasette = datasette
        self._everywhere = everywhere
        self._policy: str | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        ours = scope["type"] == "http" and is_ours(scope, self._datasette)
        if scope["type"] in {"http", "websocket"} and (ours or self._everywhere):
            hosts = (self._datasette.plugin_config(PLUGIN) or {}).get("hosts") or ()
            if not is_asked_for_by_name(scope, [str(host).lower() for host in hosts]):
                await _refuse(send)
                return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                policy = (b"content-security-policy", (await self._content_policy()).encode())
                kept = [(name, value) for name, value in message.get("headers", ()) if name.lower() != policy[0]]
                message = {**message, "headers": [*kept, policy, *_HEADERS]}
            await send(message)

        await self._app(scope, receive, send_with_headers if ours else send)

    async def _content_policy(self) -> str:
        if self._policy is None:
            self._policy = content_policy(await _bare_page(self._datasette))
        return self._policy


def is_ours(scope: Scope, datasette: Datasette) -> bool:
    """Whether a path is one of ours, as Datasette's router sees it: before percent signs are decoded."""
    path = (scope.get("raw_path") or scope["path"].encode()).partition(b"?")[0].decode("latin-1")
    prefix = datasette.setting("base_url").rstrip("/")
    return any(found == BASE or found.startswith(f"{BASE}/") for found in (path, path.removeprefix(prefix)))


def content_policy(bare_page: str) -> str:
    """The policy of our pages: scripts and styles are files of this site, or what Datasette has inline.

    Args:
        bare_page: Datasette's page around ours, with nothing on it. What is inline there is allowed wherever it stands,
            so it is never taken from a page with recorded text.
    """
    inline = _Inline()
    inline.feed(bare_page)
    inline.close()
    return "; ".join(
        [
            "default-src 'none'",
            " ".join(["script-src 'self'", *map(_hash, inline.found["script"])]),
            " ".join(["style-src 'self'", *map(_hash, inline.found["style"])]),
            "img-src 'self' data:",
            "font-src 'self'",
            "connect-src 'self'",
            "form-action 'self'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
        ]
    )


class _Inline(HTMLParser):
    """Finds the text of inline scripts and styles."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: dict[str, list[str]] = {"script": [], "style": []}
        self._inside: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self.found and "src" not in dict(attrs):
            self._inside = tag
            self.found[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == self._inside:
            self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside is not None:
            self.found[self._inside][-1] += data


async def _bare_page(datasette: Datasette) -> str:
    page: str = await datasette.render_template("base.html", {})
    return page.replace("\r\n", "\n")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


async def _refuse(send: Send) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), *_HEADERS]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": _WRONG_HOST.encode()})
