"""`tokentape serve`, as a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest

from tokentape.store import schema

pytest_plugins = ("recorded_tape",)

BASE = "/-/tokentape"
# What is reached on an address of the machine that is not loopback, as another machine would.
OUTSIDE = "0.0.0.0"
# Uvicorn gives what is being answered a second; what never stops is seen for that, and not what is slow today.
STOPS_WITHIN_S = 60


@contextmanager
def serving(*options, environment=None, code=None):
    """The process, and the URL that it prints."""
    with process(*options, environment=environment) as running:
        url = running.stdout.readline().strip()
        assert url.startswith("http://"), running.stderr.read()
        yield running, url
        if running.poll() is None:
            running.send_signal(signal.SIGINT)
        assert running.wait(STOPS_WITHIN_S) == (0 if code is None else code)


@contextmanager
def process(*options, environment=None):
    running = subprocess.Popen(
        [sys.executable, "-m", "tokentape", "serve", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    # No test waits for ever for a line that does not come.
    watchdog = threading.Timer(180, running.kill)
    watchdog.start()
    try:
        yield running
    finally:
        watchdog.cancel()
        running.kill()
        running.communicate()


class Browser:
    """Follows no redirects, keeps cookies."""

    def __init__(self):
        self.cookie = None

    def get(self, url, **headers):
        """Status, headers and text of an answer."""
        sent = {**headers, **({"cookie": self.cookie} if self.cookie else {})}
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), NoRedirect())
        try:
            answer = opener.open(urllib.request.Request(url, headers=sent), timeout=60)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            for cookie in answer.headers.get_all("set-cookie") or ():
                if cookie.startswith("ds_actor="):
                    self.cookie = cookie.partition(";")[0]
            return answer.status, answer.headers, answer.read().decode()


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


def outside(url):
    """The same place, as seen from another machine; the test needs an address that is not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: it only asks which address would be used
            address = probe.getsockname()[0]
        except OSError:
            pytest.skip("this machine has no address but loopback")
    return re.sub(r"//[^/]*:", f"//{address}:", url)


def sql(browser, home):
    """What a query is answered with; the alpha has another path for it."""
    status, headers, _ = browser.get(f"{home}/tape.json?sql=select+1")
    return browser.get(f"{home}{headers['location']}")[0] if status == 302 else status


def site(url):
    return url[: url.index("/", len("http://"))]


@pytest.mark.scenario("cli/Serve on loopback")
def test_serve_answers_on_loopback_and_says_where_and_how_to_stop(recorded_tape):
    with serving("--db", str(recorded_tape), "--port", "0") as (running, url):
        status, headers, text = Browser().get(url)
        assert re.fullmatch(rf"http://127\.0\.0\.1:\d+{BASE}", url)
        assert status == 200
        assert "support-agent" in text
        assert "content-security-policy" in headers
        assert Browser().get(f"{site(url)}/tape/llm_calls.json")[0] == 200
        assert running.stderr.readline() == f"Serving {recorded_tape}; Ctrl-C stops it.\n"


def test_an_unknown_address_is_not_found(recorded_tape):
    with serving("--db", str(recorded_tape), "--port", "0") as (_, url):
        paths = ("/nothing", "/-/nothing", "/v1/runs", f"{BASE}/no")
        answers = {path: Browser().get(site(url) + path)[0] for path in paths}
    assert answers == dict.fromkeys(paths, 404)


@pytest.mark.scenario("cli/Serve on loopback")
def test_datasette_knows_what_columns_mean_and_gives_no_file_away(recorded_tape):
    with serving("--db", str(recorded_tape), "--port", "0") as (_, url):
        browser, home = Browser(), site(url)
        assert "the provider&#39;s word" in browser.get(f"{home}/tape/llm_calls")[2]
        assert browser.get(f"{home}/tape/whose_time.json")[0] == 200
        assert sql(browser, home) == 200
        assert browser.get(f"{home}/tape.db")[0] == 403
        assert json.loads(browser.get(f"{home}/-/settings.json")[2])["allow_download"] is False


@pytest.mark.scenario("ui/Names of other sites")
def test_serve_answers_no_page_to_another_name(recorded_tape):
    with serving("--db", str(recorded_tape), "--port", "0") as (_, url):
        for path in ("", "/tape", "/tape/llm_tokens.json", BASE, f"{BASE}/api/v1/runs", "/-/static/app.css"):
            status, _, text = Browser().get(f"{site(url)}{path}", host="evil.example")
            assert status == 403
            assert text.startswith("This address answers to the names of this machine only")


@pytest.mark.scenario("cli/Serve stops")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, -signal.SIGTERM)])
def test_a_signal_stops_it_although_somebody_follows_live(recorded_tape, number, code):
    with serving("--db", str(recorded_tape), "--port", "0", code=code) as (running, url):
        live = urllib.request.urlopen(f"{url}/api/v1/live", timeout=60)
        assert live.headers["content-type"].startswith("text/event-stream")
        live.readline()
        running.send_signal(number)
        running.wait(STOPS_WITHIN_S)
        live.close()
        errors = running.stderr.read()
    assert "Traceback" not in errors
    assert errors.count("\n") == 1


@pytest.mark.scenario("ui/Live data reaches the page")
def test_live_tells_what_is_recorded_meanwhile(tmp_path):
    import tokentape

    tokentape.enable(db=tmp_path / "tape.db", flush_ms=20)
    with (
        serving("--db", str(tmp_path / "tape.db"), "--port", "0") as (_, url),
        urllib.request.urlopen(f"{url}/api/v1/live", timeout=60) as live,
    ):
        with tokentape.start_llm_stream(model="m", provider="acme") as stream:
            stream.add_token("Hello")
            stream.finish("stop")
        assert tokentape.flush()
        kinds = []
        while "finished" not in kinds:
            line = live.readline().decode()
            if line.startswith("event: "):
                kinds.append(line.split()[1])
    assert kinds == ["call", "tokens", "finished"]


@pytest.mark.scenario("cli/Port taken")
def test_a_port_that_is_taken_is_named(recorded_tape):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with process("--db", str(recorded_tape), "--port", str(port)) as running:
            out, error = running.communicate(timeout=180)

    assert (running.returncode, out) == (1, "")
    assert error == (
        f"Error: port {port} of 127.0.0.1 cannot be used (Address already in use); "
        "choose another with --port N, or 0 for any\n"
    )


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--db", "nowhere.db"], "nowhere.db does not exist: nothing is recorded there yet"),
        (["--db", "none"], "the tape is set to none"),
        (["--host", "no.such.host.invalid"], "there is no address 'no.such.host.invalid'"),
        (["--host", "192.0.2.1"], "port 8001 of 192.0.2.1 cannot be used"),
        (["--port", "65536"], "Invalid value for '--port'"),
    ],
)
def test_mistakes_are_answered_in_one_line(recorded_tape, tmp_path, options, error):
    given = options if "--db" in options else ["--db", str(recorded_tape), *options]
    done = subprocess.run(
        [sys.executable, "-m", "tokentape", "serve", *given],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )

    assert done.returncode in {1, 2}
    assert done.stdout == ""
    assert done.stderr.startswith(f"Error: {error}")
    assert done.stderr.count("\n") == 1


@pytest.mark.scenario("cli/Open the browser")
def test_open_opens_the_pages_once_they_answer(recorded_tape, tmp_path):
    opened = tmp_path / "opened"
    script = tmp_path / "browser.py"
    script.write_text(
        "import sys, urllib.request\n"
        "answer = urllib.request.urlopen(sys.argv[1], timeout=60)\n"
        f"open({str(opened)!r}, 'w').write(f'{{answer.status}} {{sys.argv[1]}}')\n"
    )
    browser = {"BROWSER": f"{sys.executable} {script} %s"}
    with serving("--db", str(recorded_tape), "--port", "0", "--open", environment=browser) as (_, url):
        until = time.monotonic() + 30
        while not opened.exists() or not opened.read_text():
            assert time.monotonic() < until
            time.sleep(0.05)
    assert opened.read_text() == f"200 {url}"


@pytest.mark.must_run
@pytest.mark.scenario("cli/Serve on another address")
def test_on_another_address_nobody_sees_anything_without_logging_in(recorded_tape):
    with serving("--db", str(recorded_tape), "--port", "0", "--host", OUTSIDE) as (_, printed):
        link = outside(printed)
        home, stranger, owner = site(link), Browser(), Browser()
        for path in EVERYTHING:
            status, _, text = stranger.get(f"{home}{path}")
            assert (status, text) == (
                403,
                "You are not logged in. Whoever started this server has a link that logs in once.\n",
            ), path
        assert stranger.get(f"{home}/-/auth-token?token=guess")[0] == 403

        status, headers, _ = owner.get(link)
        assert (status, headers["location"]) == (302, BASE)
        for path in EVERYTHING:
            assert owner.get(f"{home}{path}")[0] in {200, 302}, path
        assert stranger.get(link)[0] == 403
        assert stranger.get(f"{home}{BASE}")[0] == 403

        assert owner.get(f"{home}/tape.db")[0] == 403
        assert sql(owner, home) == 403


EVERYTHING = (
    "/",
    "/tape",
    "/tape/llm_calls",
    "/tape/llm_calls.json",
    "/tape/llm_tokens.csv",
    "/tape/llm_calls/1",
    "/tape/failed",
    "/-/versions.json",
    "/-/plugins.json",
    "/-/settings.json",
    "/-/databases.json",
    "/-/actor.json",
    "/-/static/app.css",
    BASE,
    f"{BASE}/calls/2",
    f"{BASE}/api/v1/runs",
    f"{BASE}/api/v1/llm-calls/2/events",
)


@pytest.mark.scenario("cli/Serve on another address")
def test_the_link_and_how_it_works_are_printed(recorded_tape):
    with serving("--db", str(recorded_tape), "--port", "0", "--host", OUTSIDE) as (running, link):
        assert re.fullmatch(rf"http://{re.escape(socket.gethostname())}:\d+/-/auth-token\?token=\w{{64}}", link)
        assert running.stderr.readline().startswith("Serving ")
        assert running.stderr.readline() == (
            "Whoever opens this link first is logged in; it works once, and what it opens is not encrypted:\n"
        )


@pytest.mark.scenario("cli/Serve on another address")
def test_another_address_answers_on_loopback_to_its_names_only(recorded_tape):
    with serving("--db", str(recorded_tape), "--port", "0", "--host", OUTSIDE) as (_, link):
        local = re.sub(r"//[^/]*:", "//127.0.0.1:", link)
        assert Browser().get(local, host="evil.example")[0] == 403
        assert Browser().get(local)[0] == 302


def test_calls_of_dead_processes_are_marked_as_lost_when_it_starts(tmp_path):
    import recorded_tape as recorder

    recorder._lose_a_call(tmp_path / "tape.db")
    with serving("--db", str(tmp_path / "tape.db"), "--port", "0"):
        pass
    connection = schema.open_for_reading(tmp_path / "tape.db").conn
    assert connection.execute("select status from llm_calls").fetchall() == [("lost",)]
    connection.close()


@pytest.mark.scenario("cli/Serve without the plugin")
def test_without_the_plugin_one_line_says_what_to_install(tmp_path):
    program = (
        "import importlib.metadata as m, sys\n"
        "found = m.entry_points\n"
        "m.entry_points = lambda **k: [p for p in found(**k) if p.name != 'datasette']\n"
        "from tokentape.cli import main\n"
        "sys.argv = ['tokentape', 'serve', '--port', '0', '--help']\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=180, check=False)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == 'Error: serve comes with the plugin datasette: pip install "tokentape[datasette]"\n'


def test_a_plugin_that_is_left_out_is_named(recorded_tape):
    with process("--db", str(recorded_tape), environment={"TOKENTAPE_PLUGINS": "openai"}) as running:
        _, error = running.communicate(timeout=180)

    assert error == "Error: serve comes with the plugin datasette: TOKENTAPE_PLUGINS does not name it\n"


def test_the_plugin_costs_a_recorded_program_next_to_nothing():
    program = (
        "import sys, json, tokentape; tokentape.enable(db='none'); tokentape.disable();"
        "print(json.dumps([name for name in sys.modules if name.split('.')[0] in ('datasette', 'fastapi', 'uvicorn')]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=180, check=True)

    assert json.loads(done.stdout) == []
