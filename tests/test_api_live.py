"""The live stream, listened to over a real server while other processes record."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import httpx
import pytest

from api_client import Listener, free_port, serving, serving_here
from handmade import Handmade, gone_process
from programs import eventually
from tokentape.errors import TapeError
from tokentape.tape import Came, Position
from tokentape.tape import live as live_module
from tokentape_api import create_app
from tokentape_api import feed as feed_module
from tokentape_api.feed import Feed, is_stopping
from tokentape_api.source import FileSource
from values import call_value

pytest_plugins = ("api_fixtures",)

# Two calls at once, of as many events as asked for.
RECORD = """
import sys, time, tokentape
tokentape.enable(db=sys.argv[1])
one, two = (tokentape.start_llm_stream(model=name, provider="acme") for name in ("one", "two"))
with one, two:
    for number in range(int(sys.argv[2])):
        for stream in (one, two):
            stream.add_token(f"{number} ")
        time.sleep(float(sys.argv[3]))
    one.finish("stop"); two.finish("stop")
tokentape.disable()
"""


@contextmanager
def recording(path, count, every_s=0.005):
    """Another process that records two calls of so many events."""
    records = subprocess.Popen([sys.executable, "-c", RECORD, str(path), str(count), str(every_s)])
    try:
        yield records
        assert records.wait(60) == 0
    finally:
        records.kill()


@pytest.fixture
def made(made):
    made.run()
    made.call("ENDED", (1, 0, "old"))
    return made


@pytest.fixture
def url(made):
    with serving_here(made.path) as url:
        yield url


def told(*listeners):
    """Every event that any of them was told, by call, in order; each listener went on where the one before ended."""
    found = {}
    for listener in listeners:
        for uid, tokens in listener.tokens().items():
            found.setdefault(uid, []).extend(tokens)
    return found


def numbers(count):
    return [f"{number} " for number in range(count)]


@pytest.mark.scenario("api/Another process")
def test_what_another_process_records_is_told_as_it_comes(made, url):
    with Listener(url) as listener:
        with recording(made.path, 200) as records:
            assert eventually(lambda: sum(map(len, listener.tokens().values())) > 20, bool, within=30)
            assert records.poll() is None, "nothing was told before the end"
        assert eventually(lambda: len(listener.named("finished")) == 2, bool)

        assert sorted(listener.named("call")) == sorted(listener.named("finished"))
        assert list(listener.tokens().values()) == [numbers(200)] * 2
        names = [(message.name, message.data.get("call_uid") or message.data["uid"]) for message in listener.messages]
        for uid in listener.named("call"):
            own = [name for name, of in names if of == uid]
            assert own == ["call", *["tokens"] * (len(own) - 2), "finished"]
        finished = [message.data for message in listener.messages if message.name == "finished"]
        assert [(call["status"], call["event_count"], call["model"]) for call in finished] == [
            ("completed", 200, finished[0]["model"]),
            ("completed", 200, finished[1]["model"]),
        ]
        for message in listener.messages:
            if message.name == "tokens":
                columns = [message.data[name] for name in ("token_index", "offset_us", "wait_us", "part", "token")]
                assert len({len(column) for column in columns}) == 1
                assert message.data["after"] == message.data["token_index"][0] - 1
                assert [part["kind"] for part in message.data["parts"]] == ["text"]


@pytest.mark.scenario("api/Calls in flight")
def test_it_begins_with_the_calls_that_run(made, url):
    made.call("GOING", *[(n, 0, f"t{n}") for n in range(5)], running=True)
    with Listener(url) as listener:
        assert eventually(listener.tokens, bool) == {"GOING": ["t0", "t1", "t2", "t3", "t4"]}
        made.events(call_value("GOING"), (9, 0, "t5"))
        assert eventually(lambda: listener.tokens()["GOING"][5:], bool) == ["t5"]
        assert (listener.named("call"), listener.named("finished")) == (["GOING"], [])
        (call,) = (message.data for message in listener.messages if message.name == "call")
        assert (call["status"], call["event_count"], call["duration_ms"]) == ("running", 5, None)


@pytest.mark.scenario("api/Reconnecting")
@pytest.mark.parametrize("how", ["header", "after"])
def test_who_comes_back_is_told_what_is_missing(made, url, how):
    listeners, last = [], None

    def named(name):
        return [uid for listener in listeners for uid in listener.named(name)]

    # Cut again and again; what was received last says where to go on.
    with recording(made.path, 150):
        while len(named("finished")) < 2:
            with Listener(url, **{how: last}) as listener:
                eventually(lambda here=listener: here.messages, bool, within=0.3)
            last = listener.last_id
            listeners.append(listener)
    assert len(listeners) > 2
    assert list(told(*listeners).values()) == [numbers(150)] * 2
    assert len(named("call")) == len(named("finished")) == 2


def test_every_id_is_a_place_to_go_on(made, url):
    with Listener(url) as listener, recording(made.path, 40):
        pass
    with Listener(url, after="0") as listener:
        assert eventually(lambda: len(listener.named("finished")) == 3, bool)
    whole = listener.messages
    for number, message in enumerate(whole):
        rest = Listener("", messages=whole[number + 1 :])
        with Listener(url, header=message.id) as again:
            eventually(lambda a=again: a.messages, lambda seen, r=rest: len(seen) >= len(r.messages), within=2)
            time.sleep(0.1)
        assert again.tokens() == rest.tokens()
        for name in ("call", "finished"):
            assert again.named(name) == rest.named(name)


@pytest.mark.scenario("api/Restarted server")
def test_another_server_goes_on_where_the_first_was_stopped(made):
    with serving(made.path, port := free_port()) as first, recording(made.path, 400, every_s=0.02) as records:
        with Listener(first.url) as before:
            assert eventually(before.tokens, bool, within=20)
            assert first.stop() < 5
        assert records.poll() is None
        with serving(made.path, port) as second, Listener(second.url, header=before.last_id) as after:
            records.wait(60)
            assert eventually(lambda: len(after.named("finished")) == 2, bool)
    assert list(told(before, after).values()) == [numbers(400)] * 2
    assert sorted(before.named("call") + after.named("call")) == sorted(after.named("finished"))


@pytest.mark.scenario("api/By itself")
def test_a_server_with_open_streams_stops_at_once(made):
    with serving(made.path) as server, Listener(server.url) as one, Listener(server.url) as two:
        assert server.stop() < 5
        assert eventually(lambda: one._thread.is_alive() or two._thread.is_alive(), lambda alive: not alive) is False


@pytest.mark.scenario("api/Many listeners")
def test_who_does_not_read_holds_nobody_up(made, url):
    with httpx.stream("GET", f"{url}/v1/live", timeout=30) as silent:
        assert silent.status_code == 200
        listeners = [Listener(url) for _ in range(19)]
        try:
            for listener in listeners:
                listener.__enter__()
            with recording(made.path, 100):
                pass
            for listener in listeners:
                assert eventually(lambda here=listener: len(here.named("finished")) == 2, bool, within=30)
                assert list(listener.tokens().values()) == [numbers(100)] * 2
        finally:
            for listener in listeners:
                listener.leave()


def test_a_call_whose_process_is_gone_is_finished_as_lost(made, url):
    with Listener(url) as listener:
        left = Handmade(made.path, gone_process())
        left.call("LEFT", (1, 0, "He"), (2, 0, "y"), running=True)
        left.close()
        assert eventually(lambda: listener.named("finished"), bool) == ["LEFT"]
        assert listener.tokens() == {"LEFT": ["He", "y"]}
        assert listener.messages[-1].data["status"] == "lost"
        assert made.rows("SELECT status FROM llm_calls WHERE uid = 'LEFT'") == [{"status": "running"}]


@pytest.mark.scenario("api/Another tape in its place")
def test_the_calls_of_another_tape_are_told_when_it_takes_the_place(made, url):
    with Listener(url) as listener:
        made.close()
        for file in made.path.parent.glob("tape.db*"):
            file.unlink()
        time.sleep(0.3)
        again = Handmade(made.path)
        again.run()
        again.call("NEW", (1, 0, "a"), running=True)
        assert eventually(lambda: listener.named("call"), bool, within=20) == ["NEW"]
        again.call("NEWER", (1, 0, "b"))
        assert eventually(lambda: listener.named("finished"), bool) == ["NEWER"]
        again.close()


def test_hostile_text_is_one_event(made, url):
    text = "a\n\ndata: x\r\n\revent: call\nid: 9\0\u2028\u2029\x85\x0b\x1c"
    with Listener(url) as listener:
        made.call("CALL", (1, 0, text), (2, 0, "\U0001f600"))
        assert eventually(lambda: listener.named("finished"), bool) == ["CALL"]
    assert listener.tokens() == {"CALL": [text, "\U0001f600"]}


class UvicornLike:
    def __init__(self, should_exit):
        self.should_exit = should_exit

    def handle_exit(self, number, frame):
        pass


class Counting(FileSource):
    """Counts what it is asked."""

    count = 0
    fails = None

    async def read(self, query):
        self.count += 1
        if self.fails:
            raise self.fails("fails")
        return await super().read(query)


@pytest.fixture
async def source(made):
    source = Counting(made.path)
    yield source
    source.close()


async def following(feed, position, into):
    async for happened in feed.since(position):
        into.append(happened)


async def until(condition):
    assert await asyncio.to_thread(eventually, condition, bool)


def items(into):
    return [type(change).__name__ for happened in into for change, _ in happened]


def texts(into):
    return [text for told in into for change, _ in told if isinstance(change, Came) for text in change.events.token]


async def test_one_poll_serves_all_and_ends_with_the_last(made, source):
    feed = Feed(source)
    places = [[] for _ in range(20)]
    tasks = [asyncio.create_task(following(feed, await feed.beginning(), into)) for into in places]
    await until(lambda: all(places))
    source.count = 0
    await asyncio.sleep(1)
    assert source.count <= 1 / feed_module.POLL_S + 2
    made.call("NEW", (1, 0, "a"))
    await until(lambda: all(items(into) for into in places))
    assert [items(into) for into in places] == [["Started", "Came", "Ended"]] * 20

    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(0.2)
    source.count = 0
    await asyncio.sleep(0.5)
    assert source.count == 0


@pytest.mark.scenario("api/Listener leaves")
async def test_when_the_last_listener_leaves_the_tape_is_polled_no_more(made, source):
    """The application as a server calls it: the client disconnects while nothing happens."""
    app, sent, gone = create_app(source), [], asyncio.Event()

    async def receive():
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/v1/live", "query_string": b"", "headers": [], "root_path": ""}
    serves = asyncio.create_task(app(scope | {"asgi": {"spec_version": "2.3"}}, receive, send))
    await until(lambda: len(sent) >= 2)
    assert sent[0]["status"] == 200
    assert re.fullmatch(rb"retry: 500\nid: 1-[0-9a-f]+\n\n", sent[1]["body"])
    gone.set()
    async with asyncio.timeout(5):
        await serves
    source.count = 0
    await asyncio.sleep(0.5)
    assert source.count == 0


async def test_who_is_too_far_behind_reads_the_tape_and_misses_nothing(made, source, monkeypatch):
    monkeypatch.setattr(feed_module, "UNTAKEN", 2)
    feed = Feed(source)
    slow, fast = feed.since(await feed.beginning()), []
    task = asyncio.create_task(following(feed, await feed.beginning(), fast))
    got = []
    made.call("GOING", (0, 0, "t0"), running=True)
    # Until there is nothing for a moment: from then on it lives on polls.
    while told := await anext(slow):
        got += told
    for number in range(1, 12):
        made.events(call_value("GOING"), (number, 0, f"t{number}"))
        await asyncio.sleep(0.12)
    while len(got) < 2 or got[-1][1].open != {2: 12}:
        got += await anext(slow)
    await slow.aclose()
    task.cancel()
    assert texts([got]) == texts(fast) == [f"t{number}" for number in range(12)]


async def test_who_begins_far_back_is_told_everything_before_what_comes(made, source, monkeypatch):
    monkeypatch.setattr(live_module, "EVENTS_AT_ONCE", 10)
    monkeypatch.setattr(live_module, "ALL_EVENTS_AT_ONCE", 20)
    made.call("LONG", *[(n, 0, f"t{n}") for n in range(95)])
    feed, into = Feed(source), []
    task = asyncio.create_task(following(feed, Position.parse(str(Position())), into))
    await until(lambda: items(into)[-1:] == ["Ended"] and len(items(into)) > 5)
    tokens = [
        t for happened in into for change, _ in happened if hasattr(change, "events") for t in change.events.token
    ]
    assert tokens == ["old", *(f"t{n}" for n in range(95))]
    task.cancel()


@pytest.mark.scenario("api/Quiet tape")
async def test_a_quiet_tape_says_so_every_few_seconds(made, source, monkeypatch):
    assert feed_module.IDLE_S <= 15
    monkeypatch.setattr(feed_module, "IDLE_S", 0.1)
    feed, into = Feed(source), []
    task = asyncio.create_task(following(feed, Position(1), into))
    await until(lambda: len(into) >= 3)
    assert into[:3] == [[], [], []]
    task.cancel()


async def test_a_tape_that_cannot_be_read_for_a_while_is_waited_for(made, source, monkeypatch):
    monkeypatch.setattr(feed_module, "RETRY_S", 0.02)
    feed, into = Feed(source), []
    task = asyncio.create_task(following(feed, await feed.beginning(), into))
    await until(lambda: into)
    source.fails = TapeError
    await asyncio.sleep(0.3)
    made.call("NEW", (1, 0, "a"))
    source.fails = None
    await until(lambda: items(into))
    assert items(into) == ["Started", "Came", "Ended"]

    source.fails = TapeError
    late = []
    second = asyncio.create_task(following(feed, Position(0), late))
    await until(lambda: len(late) > 2)
    source.fails = None
    await until(lambda: items(late))
    assert items(late) == ["Started", "Came", "Ended"] * 2
    for one in (task, second):
        one.cancel()


async def test_when_polling_fails_those_who_listen_are_let_go(made, source):
    feed, into = Feed(source), []
    task = asyncio.create_task(following(feed, await feed.beginning(), into))
    await until(lambda: into)
    polled = feed._poll
    source.fails = ZeroDivisionError
    async with asyncio.timeout(10):
        await task
    with pytest.raises(ZeroDivisionError):
        await polled
    source.fails = None
    again = asyncio.create_task(following(feed, await feed.beginning(), into))
    made.call("NEW", (1, 0, "a"))
    await until(lambda: items(into))
    again.cancel()


@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN, lambda *_: None, UvicornLike(False).handle_exit])
def test_a_server_that_was_not_told_to_stop_is_not_stopping(monkeypatch, handler):
    monkeypatch.setattr(signal, "getsignal", lambda number: handler)
    assert not is_stopping()


def test_a_server_that_was_told_to_stop_is_stopping(monkeypatch):
    monkeypatch.setattr(signal, "getsignal", lambda number: UvicornLike(True).handle_exit)
    assert is_stopping()


def test_a_stream_that_cannot_begin_is_a_problem(made, url):
    assert httpx.get(f"{url}/v1/live", headers={"Last-Event-ID": "x"}).status_code == 422
    made.close()
    made.path.unlink()
    assert httpx.get(f"{url}/v1/live").status_code == 503
