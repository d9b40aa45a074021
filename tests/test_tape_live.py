"""Positions on a tape that grows: what has happened since one is told once, in whatever pieces it is asked for."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from handmade import Handmade, gone_process
from tokentape.tape import Came, Ended, Position, Started, Tape
from tokentape.tape import live as live_module
from tokentape.tape.live import UNTOLD
from values import call_value


@pytest.fixture
def made(tmp_path):
    made = Handmade(tmp_path / "tape.db")
    made.run()
    yield made
    made.close()


@pytest.fixture
def tape(made):
    with Tape.open(made.path) as tape:
        yield tape


def said(changes):
    """Changes as short words: `+CALL`, `CALL:0-2`, `-CALL`."""
    words = []
    for change in changes:
        if isinstance(change, Came):
            index = change.events.token_index
            words.append(f"{change.call_uid}:{index[0]}-{index[-1]}")
        else:
            words.append({Started: "+", Ended: "-"}[type(change)] + change.call["uid"])
    return words


def text(position):
    """A position without the mark of its tape."""
    return str(replace(position, mark=""))


def events(count, first=0):
    return [(10.0 * (first + number), 0, f"t{first + number}") for number in range(count)]


POSITIONS = st.builds(
    lambda highest, mark, open_: Position(highest, mark, {call: i for call, i in open_.items() if call <= highest}),
    st.integers(0, 2**63 - 1),
    st.text("0123456789abcdef", max_size=8),
    st.dictionaries(st.integers(0, 10**6), st.integers(UNTOLD, 2**40), max_size=20),
)


@given(POSITIONS)
def test_a_position_is_text_and_back(position):
    assert Position.parse(str(position)) == position
    assert str(position).translate(str.maketrans("", "", "_.-")).isalnum()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "-2",
        "1_",
        "1_2",
        "1_1.",
        "1_1.x",
        "1_2.0",
        "1_1.0_1.1",
        "01",
        "1_1.-2",
        "1_-1.0",
        "-1",
        "٣",
        "1 ",
        str(2**63),
        "1_1.0.0",
    ],
)
def test_what_is_no_position_is_refused(text):
    with pytest.raises(ValueError):
        Position.parse(text)


@given(st.text(max_size=30))
def test_any_text_is_a_position_or_refused(text):
    try:
        assert str(Position.parse(text)) == text
    except ValueError:
        pass


def test_what_happens_after_a_position_is_told_in_order(made, tape):
    made.call("OLD", *events(2))
    start = tape.now()
    assert text(start) == "1"
    made.call("ENDED", *events(3))
    made.call("GOING", *events(2), running=True)

    happened = tape.changes(start)
    assert said(happened.changes) == ["+ENDED", "ENDED:0-2", "-ENDED", "+GOING", "GOING:0-1"]
    assert (text(happened.since), text(happened.until)) == ("1", "3_3.2")
    assert said(tape.changes(happened.until).changes) == []

    made.events(call_value("GOING"), *events(2, first=2))
    later = tape.changes(happened.until)
    assert said(later.changes) == ["GOING:2-3"]
    assert later.changes[0].events.token == ["t2", "t3"]
    assert later.changes[0].events.offset_us == [20_000, 30_000]
    assert [part["kind"] for part in later.changes[0].parts] == ["text"]


def test_the_beginning_is_before_the_calls_that_run(made, tape):
    made.call("ENDED", *events(3))
    made.call("GOING", *events(2), running=True)
    made.call("SILENT", running=True)

    start = tape.beginning()

    assert text(start) == "3_2.-1_3.-1"
    assert said(tape.changes(start).changes) == ["+GOING", "GOING:0-1", "+SILENT"]
    assert text(tape.now()) == "3_2.2_3.0"


def test_a_call_whose_process_is_gone_has_ended(made, tape):
    left = Handmade(made.path, gone_process())
    left.call("LEFT", *events(3), running=True)
    left.close()

    assert text(tape.beginning()) == "1"
    assert said(tape.changes(Position()).changes) == ["+LEFT", "LEFT:0-2", "-LEFT"]
    assert tape.changes(Position()).changes[-1].call["status"] == "lost"


@pytest.mark.parametrize("place", ["99-abc_7.3", "1-abc", "1-abc_1.0", "1"])
def test_a_position_of_another_tape_starts_anew(made, tape, place):
    made.call("GOING", *events(1), running=True)

    happened = tape.changes(Position.parse(place))
    assert (text(happened.since), said(happened.changes)) == ("1_1.-1", ["+GOING", "GOING:0-0"])


def test_much_is_told_in_pieces(made, tape, monkeypatch):
    monkeypatch.setattr(live_module, "EVENTS_AT_ONCE", 4)
    monkeypatch.setattr(live_module, "ALL_EVENTS_AT_ONCE", 8)
    monkeypatch.setattr(live_module, "CALLS_AT_ONCE", 2)
    for uid in ("A", "B", "C"):
        made.call(uid, *events(10))

    told, position = [], Position()
    while (happened := tape.changes(position)).changes:
        told.append(said(happened.changes))
        position = happened.until
    assert told == [
        ["+A", "A:0-3", "A:4-7"],
        ["A:8-9", "-A", "+B", "B:0-3", "B:4-7"],
        ["B:8-9", "-B", "+C", "C:0-3", "C:4-7"],
        ["C:8-9", "-C"],
    ]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("start"), st.integers(0, 3)),
        st.tuples(st.just("more"), st.integers(0, 3), st.integers(1, 5)),
        st.tuples(st.just("end"), st.integers(0, 3)),
        st.tuples(st.just("poll")),
        st.tuples(st.just("take"), st.integers(0, 2)),
        st.tuples(st.just("read"), st.integers(0, 2)),
    ),
    max_size=40,
)


class Reader:
    """Somebody who takes what was polled for all, or reads the tape itself, whenever it likes."""

    def __init__(self):
        self.position, self.untaken, self.told = Position(), [], []

    def tell(self, changes):
        for change in changes:
            rest = change.since(self.position)
            if rest is not None:
                self.position = rest.after(self.position)
                self.told.extend(_items(rest))

    def take(self):
        untaken, self.untaken = self.untaken, []
        self.tell(untaken)

    def read(self, tape):
        self.tell(tape.changes(self.position).changes)


class World:
    """A tape on which calls start, go on and end, one poll for all, and three readers."""

    def __init__(self, made, tape):
        self.made, self.tape = made, tape
        self.head, self.readers = tape.now(), [Reader() for _ in range(3)]
        self.sizes, self.ended = {}, set()

    def start(self, number):
        if number not in self.sizes:
            self.made.call(f"C{number}", *events(1), running=True)
            self.sizes[number] = 1

    def more(self, number, count):
        if number in self.sizes.keys() - self.ended:
            self.made.events(call_value(f"C{number}"), *events(count, first=self.sizes[number]))
            self.sizes[number] += count

    def end(self, number):
        if number in self.sizes.keys() - self.ended:
            self.made.end(f"C{number}")
            self.ended.add(number)

    def poll(self):
        happened = self.tape.changes(self.head)
        self.head = happened.until
        for reader in self.readers:
            reader.untaken += happened.changes

    def take(self, number):
        self.readers[number].take()

    def read(self, number):
        self.readers[number].read(self.tape)

    def all_of(self, number):
        """What there is to tell of a call, in order."""
        end = [f"-C{number}"] if number in self.ended else []
        return [f"+C{number}", *(f"C{number}:{index}" for index in range(self.sizes[number])), *end]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_whoever_reads_whenever_is_told_everything_once(tmp_path_factory, steps):
    made = Handmade(tmp_path_factory.mktemp("tape") / "tape.db")
    made.run()
    with Tape.open(made.path) as tape:
        world = World(made, tape)
        for name, *arguments in [*steps, ("poll",), *(("take", number) for number in range(3))]:
            getattr(world, name)(*arguments)
    made.close()
    for reader in world.readers:
        of_each = {number: [item for item in reader.told if f"C{number}" in item] for number in world.sizes}
        assert of_each == {number: world.all_of(number) for number in world.sizes}


def _items(change):
    if isinstance(change, Came):
        return [f"{change.call_uid}:{index}" for index in change.events.token_index]
    return [("+" if isinstance(change, Started) else "-") + change.call["uid"]]
