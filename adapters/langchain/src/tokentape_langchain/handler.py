"""The callback handler: model runs become framework calls; tools, retrievers and graph nodes become marks.

LangChain calls it on the thread and in the context in which things happen (`run_inline`), and every method hands over
at once. It must not have both `tap_output_iter` and `tap_output_aiter`, nor inherit LangChain's marker of a streaming
handler: either would turn each plain `invoke` into a stream.
"""

from __future__ import annotations

from typing import Any, Final, Self
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler

from tokentape import context, faults
from tokentape.marks import Marks
from tokentape.recorder import Recorder
from tokentape.settings import is_strict

from .cancellation import note_begun
from .marks import node_name, step_name
from .model_run import ModelRun
from .requests import chat_request, text_request

_PLACE: Final = "langchain adapter"
_CHUNK: Final = "a chunk's events"


class Handler(BaseCallbackHandler):  # type: ignore[misc]  # to us, every LangChain value is Any
    """Records what LangChain tells it while recording is on.

    Args:
        recorder: opens calls; None for a handler that does nothing, which is what a copy in another process is.
    """

    run_inline = True
    # Asked at each chunk, of a property unless it is said here.
    ignore_llm = False

    def __init__(self, recorder: Recorder | None) -> None:
        self._recorder = recorder
        self._runs: dict[UUID, ModelRun] = {}
        self._marks = Marks(recorder)

    @property
    def raise_error(self) -> bool:
        """Whether LangChain passes on what a method raises: only where faults of ours shall be seen."""
        return is_strict()

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # A program that copies its configuration copies the callbacks in it: they stay this one handler.
        return self

    def __reduce__(self) -> tuple[type[Handler], tuple[None]]:
        return Handler, (None,)

    def stop(self) -> None:
        """Forget what is under way, and do nothing from now on."""
        self._recorder = None
        self._runs.clear()
        self._marks = Marks(None)

    def on_chat_model_start(self, serialized: Any, messages: list[list[Any]], *, run_id: UUID, **kwargs: Any) -> None:
        """A chat model is about to be asked."""
        with _guard("a call"):
            self._open(chat_request, messages, run_id, kwargs)

    def on_llm_start(self, serialized: Any, prompts: list[str], *, run_id: UUID, **kwargs: Any) -> None:
        """A model that completes text is about to be asked."""
        with _guard("a call"):
            self._open(text_request, prompts, run_id, kwargs)

    # LangChain's synchronous manager passes the token by this name, its asynchronous one by position.
    def on_llm_new_token(
        self, token: Any, *, chunk: Any = None, run_id: UUID, parent_run_id: Any = None, tags: Any = None, **kwargs: Any
    ) -> None:
        """A chunk has come."""
        run = self._runs.get(run_id)
        if run is not None:
            # What a guard does, without its price: this is the hot path.
            try:
                run.saw_chunk(token, chunk)
            except Exception as fault:
                faults.report(_PLACE, fault, _CHUNK)

    def on_stream_event(self, event: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """An event of LangChain's own streaming protocol: made from a chunk that was seen, or by the model itself."""
        run = self._runs.get(run_id)
        if run is not None:
            with _guard(_CHUNK):
                run.saw_event(event)

    def on_llm_end(self, response: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """The answer is complete."""
        run = self._runs.pop(run_id, None)
        if run is not None:
            with _guard("how a call ended"):
                run.completed(response)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """The model failed, or whoever read the answer stopped."""
        run = self._runs.pop(run_id, None)
        if run is not None:
            with _guard("how a call ended"):
                run.failed(error, kwargs.get("response"))

    def on_tool_start(self, serialized: Any, input_str: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """A tool begins."""
        with _guard("a mark"):
            self._marks.begin(run_id, "tool", step_name(serialized, kwargs))

    def on_retriever_start(self, serialized: Any, query: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """A retrieval begins."""
        with _guard("a mark"):
            self._marks.begin(run_id, "retriever", step_name(serialized, kwargs))

    def on_chain_start(self, serialized: Any, inputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """A runnable begins; only a node of a graph is worth a mark."""
        with _guard("a mark"):
            node = node_name(kwargs)
            if node is not None:
                self._marks.begin(run_id, "node", node)

    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """What began with this id is over."""
        with _guard("a mark"):
            self._marks.end(run_id)

    # However it went, a mark is a span of time.
    on_tool_error = on_retriever_end = on_retriever_error = on_chain_end = on_chain_error = on_tool_end

    def _open(self, read: Any, asked: Any, run_id: UUID, told: dict[str, Any]) -> None:
        recorder = self._recorder
        if recorder is None:
            return
        request, labels = read(asked, run_id, told)
        # The program's own labels win over those that LangGraph's configuration suggests.
        with context.setting(context.LABELS, {**labels, **context.LABELS.get()}):
            call = recorder.start(request)
        if call is not None:
            note_begun(run_id)
            self._runs[run_id] = ModelRun(call, alone=told.get("batch_size", 1) == 1)


def _guard(lost: str) -> faults.guard:
    return faults.guard(_PLACE, lost)
