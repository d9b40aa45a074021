"""The span handler: when a model has handed over its generator, and how long tools, retrievers and steps took."""

from __future__ import annotations

from typing import Any, Final

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.instrumentation.span_handlers import BaseSpanHandler
from llama_index.core.tools import BaseTool
from llama_index.core.workflow import Workflow

from tokentape.marks import Marks
from tokentape.recorder import Recorder

from .generations import Generations, guard
from .requests import method_of

_RETRIEVALS: Final = frozenset({"retrieve", "aretrieve"})


class SpanHandler(BaseSpanHandler):  # type: ignore[misc]  # to us, every LlamaIndex value is Any
    """Hears where LlamaIndex's spans begin and end; keeps none of them, nor what they were given or returned.

    Args:
        generations: those under way.
        recorder: takes the marks.
    """

    __slots__ = ("_generations", "_known", "_marks")
    _generations: Generations
    _known: dict[str, tuple[str, str]]
    _marks: Marks

    def __init__(self, generations: Generations, recorder: Recorder) -> None:
        super().__init__()
        object.__setattr__(self, "_generations", generations)
        object.__setattr__(self, "_marks", Marks(recorder))
        object.__setattr__(self, "_known", {})

    @classmethod
    def class_name(cls) -> str:
        """How LlamaIndex calls the handler."""
        return "TokentapeSpanHandler"

    def span_enter(self, id_: str, bound_args: Any, instance: Any = None, parent_id: Any = None, **kwargs: Any) -> None:
        """A method that LlamaIndex watches is called."""
        with guard("a mark"):
            known = self._known_as(id_, instance, parent_id)
            if known is None:
                return
            # A tool's `__call__` calls its `call`, and an adapted tool the tool it adapts: that is one use of it.
            again = self._known.get(parent_id) == known
            self._known[id_] = known
            if known[0] != "workflow" and not again:
                self._marks.begin(id_, *known)

    def span_exit(self, id_: str, bound_args: Any, instance: Any = None, result: Any = None, **kwargs: Any) -> None:
        """It returned, perhaps a generator that is read later."""
        with guard("how a call ended"):
            self._generations.returned(id_, result)
        self._left(id_)

    def span_drop(self, id_: str, bound_args: Any, instance: Any = None, err: Any = None, **kwargs: Any) -> None:
        """It raised."""
        with guard("how a call ended"):
            self._generations.failed(id_, err)
        self._left(id_)

    def new_span(self, *args: Any, **kwargs: Any) -> None:
        """No span is kept."""

    prepare_to_exit_span = prepare_to_drop_span = new_span

    def _left(self, span_id: str) -> None:
        with guard("a mark"):
            if self._known.pop(span_id, None) is not None:
                self._marks.end(span_id)

    def _known_as(self, span_id: str, instance: Any, parent_id: str | None) -> tuple[str, str] | None:
        """Kind and name of what is worth a mark, and of workflows, whose own calls are their steps."""
        method = method_of(span_id)
        if isinstance(instance, BaseTool):
            return "tool", str(instance.metadata.name or type(instance).__name__)
        if isinstance(instance, BaseRetriever):
            return ("retriever", type(instance).__name__) if method in _RETRIEVALS else None
        if isinstance(instance, Workflow):
            return "workflow", type(instance).__name__
        if instance is None and self._known.get(parent_id or "", ("", ""))[0] == "workflow":
            return "node", method
        return None
