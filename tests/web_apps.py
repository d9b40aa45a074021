"""Applications that proxy a provider's stream, and the servers that people run them under."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from programs import eventually, read

FASTAPI = """
import os
import openai, tokentape
from fastapi import APIRouter, BackgroundTasks, FastAPI
from fastapi.responses import StreamingResponse
from tokentape.asgi import RunPerRequest

tokentape.enable()
app = FastAPI()
app.add_middleware(RunPerRequest)
threads = APIRouter(prefix="/v1/threads")
client = openai.AsyncOpenAI(base_url=os.environ["SERVER"], api_key="none", max_retries=0)
blocking = openai.OpenAI(base_url=os.environ["SERVER"], api_key="none", max_retries=0)

async def stream_async(model):
    async with await client.chat.completions.create(model=model, messages=[], stream=True) as stream:
        async for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                yield chunk.choices[0].delta.content

def stream(model):
    with blocking.chat.completions.create(model=model, messages=[], stream=True) as stream:
        for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                yield chunk.choices[0].delta.content

@app.post("/chat")
async def chat(model: str = "gpt-x"):
    return StreamingResponse(stream_async(model), media_type="text/plain")

@app.post("/chat-in-threads")
def chat_in_threads(model: str = "gpt-x"):
    return StreamingResponse(stream(model), media_type="text/plain")

async def summarise(model):
    assert [text async for text in stream_async(model)]

@threads.get("/{thread_id}/title")
async def title(thread_id: str, background: BackgroundTasks):
    background.add_task(summarise, "gpt-background")
    return "".join([text async for text in stream_async("gpt-x")])

@app.get("/health")
async def health():
    return "fine"

@app.post("/fails")
async def fails():
    await summarise("gpt-x")
    raise ValueError("of the program")

app.include_router(threads)
"""

FLASK = """
import os
import openai, tokentape
from flask import Flask, Response
from tokentape.wsgi import RunPerRequest

tokentape.enable()
app = Flask(__name__)
app.wsgi_app = RunPerRequest(app.wsgi_app)
client = openai.OpenAI(base_url=os.environ["SERVER"], api_key="none", max_retries=0)

def stream(model):
    with client.chat.completions.create(model=model, messages=[], stream=True) as stream:
        for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                yield chunk.choices[0].delta.content

@app.post("/chat")
def chat():
    return Response(stream("gpt-x"), mimetype="text/plain")

@app.get("/v1/threads/<int:thread_id>/title")
def title(thread_id):
    answer = Response("".join(stream("gpt-x")))
    answer.call_on_close(lambda: list(stream("gpt-background")))
    return answer

@app.get("/health")
def health():
    return "fine"

@app.post("/fails")
def fails():
    list(stream("gpt-x"))
    raise ValueError("of the program")
"""

UVICORN = ("-m", "uvicorn", "--fd", "{fd}", "--log-level", "warning", "app:app")
GUNICORN = ("-m", "gunicorn", "--bind", "fd://{fd}", "--log-level", "warning", "--graceful-timeout", "10")
PRELOADED_UVICORN = (*GUNICORN, "--preload", "--workers", "2", "-k", "uvicorn_worker.UvicornWorker", "app:app")
PRELOADED_ASGI = (*GUNICORN, "--preload", "--workers", "2", "-k", "asgi", "app:app")
PRELOADED_SYNC = (*GUNICORN, "--preload", "--workers", "2", "app:app")
PRELOADED_THREADS = (*GUNICORN, "--preload", "--workers", "2", "--threads", "4", "app:app")


class Served:
    """An application under a server of its own, recorded to a tape that the test can read; a context manager.

    Args:
        folder: where application, tape and log are.
        code: the text of `app.py`.
        command: what to start it with, after the interpreter; `{fd}` is the socket it is to listen on.
        provider: URL of the model's provider.
        environment: more variables.

    Attributes:
        url: where it is served.
        process: the server, or what has started its workers.
    """

    def __init__(
        self,
        folder: Path,
        code: str,
        command: tuple[str, ...],
        provider: str,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.tape = folder / "tape.db"
        self._log = folder / "server.log"
        (folder / "app.py").write_text(code, encoding="utf-8")
        variables = {"SERVER": provider, "TOKENTAPE_DB": str(self.tape), **(environment or {})}
        # Bound here and inherited: no port can be taken by somebody else in between, and who connects early waits.
        with closing(socket.create_server(("127.0.0.1", 0))) as listener, self._log.open("wb") as log:
            self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            self.process = subprocess.Popen(
                [sys.executable, *(part.format(fd=listener.fileno()) for part in command)],
                cwd=folder,
                env={**os.environ, **variables},
                pass_fds=[listener.fileno()],
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def log(self) -> str:
        """What the server has said."""
        return self._log.read_text("utf-8")

    def client(self) -> httpx.Client:
        """A client with connections of its own; waits while the server starts."""
        return httpx.Client(base_url=self.url, timeout=60)

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """What a query finds on the tape."""
        return read(self.tape, sql)

    def eventually(self, sql: str, expected: list[dict[str, Any]]) -> None:
        """Wait until a query finds this."""
        seen = eventually(lambda: self.rows(sql) if self.tape.exists() else [], lambda rows: rows == expected, 30)
        assert seen == expected, (seen, self.log)

    def stop(self) -> int:
        """Ask it to stop, and wait for it; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.stop()
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
            raise
