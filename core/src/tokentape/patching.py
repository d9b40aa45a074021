"""Patching an SDK's classes so that it can be undone, and saying what is patched.

Each target is patched on its own: one that a new SDK release has renamed is reported, the rest still record. Undoing
puts the original back by identity; where another tool has wrapped ours in the meantime, ours stays as an inert
pass-through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import wrapt

from . import faults
from .errors import UnsupportedSDK

Wrapper = Callable[[Any, Any, tuple[Any, ...], dict[str, Any]], Any]


@dataclass(slots=True)
class _Patch:
    owner: Any
    name: str
    original: Any
    wrapper: Any
    tool: str | None

    @property
    def target(self) -> str:
        return f"{getattr(self.owner, '__module__', '')}.{getattr(self.owner, '__qualname__', self.owner)}.{self.name}"

    @property
    def in_place(self) -> bool:
        return self.owner.__dict__.get(self.name) is self.wrapper


@dataclass(slots=True)
class PatchSet:
    """The patches one adapter has made in one SDK.

    Attributes:
        adapter: who patches; names the set in `status()`.
        sdk: the SDK's name and, once known, its version.
        problem: why nothing is recorded, when that is so.
    """

    adapter: str
    sdk: str
    problem: str | None = None
    missing: list[str] = field(default_factory=list)
    _patches: list[_Patch] = field(default_factory=list)
    _active: bool = True

    def wrap(self, module: ModuleType, path: str, wrapper: Wrapper) -> None:
        """Wrap `Class.method` of a module; a target that is not there is noted as missing.

        Args:
            module: where the class is defined.
            path: the class and its method. Patch the class that defines it, not one that inherits it.
            wrapper: called as wrapt calls it, `wrapper(wrapped, instance, args, kwargs)`, with the bound method and the
                object it was called on; what it returns, the program gets.
        """
        owner_name, _, name = path.rpartition(".")
        owner = getattr(module, owner_name, None)
        original = getattr(owner, "__dict__", {}).get(name)
        if original is None:
            self.missing.append(f"{module.__name__}.{path}")
            return
        wrapped = wrapt.FunctionWrapper(original, wrapper, enabled=self._is_active)
        setattr(owner, name, wrapped)
        patch = _Patch(owner, name, original, wrapped, _tool_of(original, owner))
        self._patches.append(patch)
        if patch.tool is not None:
            faults.logger.info(
                "%s adapter: %s had patched %s before; what it calls is recorded, and it works on.",
                self.adapter,
                patch.tool,
                patch.target,
            )

    def undo(self) -> None:
        """Restore every original that is still under our patch, and make the others inert."""
        self._active = False
        for patch in reversed(self._patches):
            if patch.in_place:
                setattr(patch.owner, patch.name, patch.original)
        self._patches = [p for p in self._patches if p.owner.__dict__.get(p.name) is not p.original]
        if not self._patches and self in _sets:
            _sets.remove(self)

    def report(self) -> dict[str, Any]:
        """What is patched, missing, and what of it somebody else has patched before or after us, for `status()`."""
        return {
            "adapter": self.adapter,
            "sdk": self.sdk,
            "problem": self.problem,
            "patched": [p.target for p in self._patches if p.in_place and self._active],
            "missing": list(self.missing),
            "patched_before": {p.target: p.tool for p in self._patches if p.tool is not None},
            # Once undone, what is left of ours is under another tool's, or was when it could not be taken away.
            "wrapped_over": [p.target for p in self._patches if not (p.in_place and self._active)],
        }

    def _is_active(self) -> bool:
        return self._active


def _tool_of(original: Any, owner: Any) -> str | None:
    """The package of another tool that a method comes from; None for the SDK's own."""
    # What it wraps lends a wrapper its names, but not the globals of its code.
    code = original._self_wrapper if isinstance(original, wrapt.FunctionWrapper) else original
    package, home = (name.partition(".")[0] for name in (_home(code), owner.__module__))
    return None if package in {"", home} else package


def _home(code: Any) -> str:
    """Module in which a function, or a method, was written."""
    name = getattr(getattr(code, "__func__", code), "__globals__", {}).get("__name__")
    return name if isinstance(name, str) else ""


_sets: list[PatchSet] = []
_hooks: dict[str, list[Callable[[ModuleType], None]]] = {}


def reports() -> list[dict[str, Any]]:
    """What every adapter has patched so far."""
    return [patches.report() for patches in _sets]


def patch_when_imported(
    adapter: str, sdk: str, supported: str, patch: Callable[[PatchSet, ModuleType], None]
) -> Callable[[], None]:
    """Patch an SDK as soon as it is imported, or at once if it already is.

    Args:
        adapter: who patches; named like its entry point.
        sdk: name of the SDK's top module. Its version is its `__version__`, else that of the distribution of this name.
        supported: range of versions, such as `>=2,<4`; any other is left alone, and one line says so.
        patch: makes the patches in the set it is given, which comes with the SDK's module. What it raises is reported.

    Returns:
        A function that undoes the patches and forgets about the import.
    """
    patches = PatchSet(adapter, sdk)

    def on_import(module: ModuleType) -> None:
        _sets.append(patches)
        try:
            version = _version(module)
            patches.sdk = f"{sdk} {version}"
            require(adapter, sdk, version, supported)
            patch(patches, module)
        except Exception as fault:
            patches.problem = str(fault)
            if isinstance(fault, UnsupportedSDK):
                faults.logger.warning("%s", fault)
            else:
                faults.report(f"{adapter} adapter", fault, f"everything that {sdk} streams")

    _on_import(sdk, on_import)

    def undo() -> None:
        _hooks[sdk].remove(on_import)
        patches.undo()

    return undo


def _version(module: ModuleType) -> str:
    version = getattr(module, "__version__", None)
    if isinstance(version, str):
        return version
    import importlib.metadata

    try:
        # In a distribution's name a dot and a hyphen are the same.
        return importlib.metadata.version(module.__name__)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def require(adapter: str, sdk: str, found: str, supported: str) -> None:
    """Check an SDK's version.

    Raises:
        UnsupportedSDK: it is outside the range; the message says what was found and what is supported.
    """
    if not all(_holds(found, bound) for bound in supported.split(",")):
        raise UnsupportedSDK(f"{adapter} adapter: supports {sdk} {supported}, found {found}: not recording.")


def _holds(found: str, bound: str) -> bool:
    version, limit = _numbers(found), _numbers(bound.lstrip("<>="))
    return version < limit if bound.startswith("<") else version >= limit


def _numbers(version: str) -> list[int]:
    """The leading numbers of a version, which is all that our ranges need: `3.0.0rc1` counts as 3.0."""
    numbers = []
    for piece in version.split("."):
        if not piece.isdigit():
            break
        numbers.append(int(piece))
    return numbers


def _on_import(name: str, hook: Callable[[ModuleType], None]) -> None:
    """Call a hook when a module is imported. wrapt cannot forget a hook, so it gets one of ours a module, for good."""
    if name in _hooks:
        _hooks[name].append(hook)
        import sys

        module = sys.modules.get(name)
        if module is not None:
            hook(module)
        return
    _hooks[name] = [hook]
    wrapt.register_post_import_hook(lambda module: _run(_hooks[name], module), name)


def _run(hooks: Iterable[Callable[[ModuleType], None]], module: ModuleType) -> None:
    for hook in tuple(hooks):
        hook(module)
