"""A pytest plugin: with the environment variable CI set, a test marked `must_run` fails where it would be skipped."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    report: pytest.TestReport = yield
    skipped = report.skipped and not hasattr(report, "wasxfail")
    if skipped and os.environ.get("CI") and item.get_closest_marker("must_run"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} must run in CI, and was skipped: {_reason(report)}"
    return report


def _reason(report: pytest.TestReport) -> str:
    """A skip's longrepr is (file, line, reason); a plugin may have put something else there."""
    return str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
