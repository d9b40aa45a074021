"""What `import tokentape` costs a program that never records, beside `import pluggy`, on which it stands."""

from __future__ import annotations

from collections.abc import Iterator

from children import measured
from harness import Row, interleaved, shown

TIMED = "import time; start = time.perf_counter(); import {module}; print((time.perf_counter() - start) * 1e3)"


def rows() -> Iterator[Row]:
    """The ratio of the two imports."""
    modules = ("pluggy", "tokentape")
    times = interleaved({name: lambda name=name: measured(TIMED.format(module=name)) for name in modules})
    ours, theirs = min(times["tokentape"]), min(times["pluggy"])
    yield Row("import tokentape, by import pluggy", ours / theirs, 2.0, "×", f"{shown(ours)} and {shown(theirs)} ms")
