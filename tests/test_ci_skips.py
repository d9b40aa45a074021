from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

TESTS = """
    import pytest

    @pytest.fixture
    def recordings():
        pytest.skip("no recordings")

    @pytest.mark.must_run
    @pytest.mark.skip(reason="by a mark")
    def test_by_mark(): ...

    @pytest.mark.must_run
    def test_by_fixture(recordings): ...

    @pytest.mark.must_run
    def test_in_body():
        pytest.skip("in the body")

    @pytest.mark.must_run
    @pytest.mark.xfail
    def test_expected_to_fail():
        assert False

    @pytest.mark.must_run
    def test_that_runs(): ...

    def test_not_marked(recordings): ...
"""


@pytest.fixture
def outcome(pytester: pytest.Pytester):
    pytester.makeini("[pytest]\nmarkers = must_run: …\nasyncio_default_fixture_loop_scope = function")
    pytester.makepyfile(TESTS)
    return lambda: pytester.runpytest("-p", "ci_skips")


def test_in_ci_a_skipped_test_that_must_run_fails_and_says_why(outcome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    result = outcome()
    result.assert_outcomes(passed=1, failed=1, errors=2, skipped=1, xfailed=1)
    for reason in ("by a mark", "no recordings", "in the body"):
        result.stdout.fnmatch_lines([f"*must run in CI, and was skipped: *{reason}"])


@pytest.mark.parametrize("value", [None, ""])
def test_elsewhere_it_is_skipped(outcome, monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("CI", raising=False) if value is None else monkeypatch.setenv("CI", value)
    outcome().assert_outcomes(passed=1, skipped=4, xfailed=1)
