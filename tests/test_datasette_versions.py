"""The pages, the API, permissions and `tokentape serve` on the alpha of Datasette 1.0."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from other_versions import installed

pytest_plugins = ("recorded_tape",)

ALPHA = "1.0a41"
TESTS = Path(__file__).resolve().parent
# Of the tests for 0.65 those that look at every page, at the API, and at who may see them.
SMOKE = (
    "test_datasette_pages.py::test_elements_are_told_where_the_api_is_and_wrap_what_they_replace",
    "test_datasette_pages.py::test_datasette_links_to_the_pages",
    "test_datasette_pages.py::test_of_several_tapes_each_has_its_pages",
    "test_datasette_guard.py::test_who_may_not_see_the_tape_sees_none_of_it",
    "test_datasette_guard.py::test_who_may_see_the_tape_sees_pages_and_answers",
    "test_datasette_guard.py::test_another_plugin_may_answer_who_is_not_allowed",
    "test_datasette_guard.py::test_only_our_files_and_what_datasette_has_inline_may_run",
    "test_datasette_guard.py::test_recorded_text_is_never_markup_on_any_page",
    "test_datasette_guard.py::test_a_page_of_another_site_reads_nothing",
    "test_datasette_guard.py::test_the_api_is_the_one_of_tokentape_api",
    "test_datasette_serve.py::test_datasette_knows_what_columns_mean_and_gives_no_file_away",
    "test_datasette_serve.py::test_a_signal_stops_it_although_somebody_follows_live",
    "test_datasette_serve.py::test_on_another_address_nobody_sees_anything_without_logging_in",
)


@pytest.mark.must_run
@pytest.mark.scenario("ui/Datasette 1.0 alpha")
def test_pages_api_permissions_and_serve_on_the_alpha(recorded_tape, pytestconfig):
    folder = installed("datasette", ALPHA, pytestconfig.cache)
    environment = {**os.environ, "PYTHONPATH": str(folder), "RECORDED_TAPE": str(recorded_tape)}
    version = subprocess.run(
        [sys.executable, "-c", "import datasette; print(datasette.__version__)"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert version.stdout.strip() == ALPHA

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *SMOKE],
        cwd=TESTS,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout[-5000:]
