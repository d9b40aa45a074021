"""Secrets are masked however the stream cuts them, and everything else about the events stays as it was."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle, pairwise
from typing import Any

import pytest
import regex
from hypothesis import example, given
from hypothesis import strategies as st

from secrets_to_mask import BEFORE, OPTIONAL_SECRETS, SECRETS
from tokentape import faults
from tokentape.models import Part, Token, TokenBatch
from tokentape.redaction import (
    BUILT_IN,
    CallRedactor,
    Pattern,
    Rules,
    chosen,
    guard,
    patterns,
    redact_json,
    redact_text,
)
from tokentape.redaction.patterns import OPENINGS
from tokentape.settings import OPTIONAL_KINDS

HOLD_CHARS = 4096
HOLD_US = 2_000_000
each_secret = pytest.mark.parametrize(("name", "kind", "secret"), [(n, k, s) for n, (k, s) in SECRETS.items()])


def batch(tokens: Sequence[str], part: Sequence[int] | None = None, start_us: int = 0, **more: Any) -> TokenBatch:
    times = [start_us + 10 * i for i in range(len(tokens))]
    return TokenBatch(times, [7] * len(tokens), part or [0] * len(tokens), list(tokens), **more)


def passed(batches: Iterable[TokenBatch], rules: Rules | None = None) -> list[Token]:
    """All rows that come out, in the order they do."""
    redactor = CallRedactor(rules) if rules else CallRedactor()
    rows = [row for one in batches for row in redactor.feed(one)]
    return [*rows, *redactor.finish()]


def one_by_one(tokens: Sequence[str], part: Sequence[int] | None = None) -> list[TokenBatch]:
    return [
        batch([token], [number], start_us=10 * i)
        for i, (token, number) in enumerate(zip(tokens, part or [0] * len(tokens), strict=True))
    ]


def texts(rows: Iterable[Token]) -> list[str | None]:
    return [row.token for row in rows]


def joined(rows: Iterable[Token]) -> dict[int, str]:
    found: dict[int, str] = defaultdict(str)
    for row in rows:
        found[row.part] += row.token or ""
    return dict(found)


@each_secret
def test_each_kind_is_masked_and_its_surroundings_stay(name: str, kind: str, secret: str) -> None:
    before = BEFORE.get(name, "My own: ")

    assert redact_text(f"{before}{secret}") == f"{before}[redacted:{kind}]"
    assert redact_text(f"{before}{secret} and on") == f"{before}[redacted:{kind}] and on"
    assert redact_text(f'{{"v":"x\\n{before}{secret}"}}') == f'{{"v":"x\\n{before}[redacted:{kind}]"}}'
    assert redact_text(f'"{before}{secret}", "{before}{secret}"').count(f"[redacted:{kind}]") == 2


def test_a_key_behind_a_json_escape_is_masked() -> None:
    assert redact_text(r'{"t":"a\nsk-0123456789abcdef"}') == r'{"t":"a\n[redacted:api_key]"}'


@pytest.mark.parametrize("at_once", [True, False], ids=["one batch", "a batch each"])
@each_secret
def test_a_secret_is_masked_wherever_it_is_cut(name: str, kind: str, secret: str, at_once: bool) -> None:
    before = BEFORE.get(name, "My own: ")
    for cut in range(1, len(secret)):
        tokens = [before, secret[:cut], secret[cut:], " and on"]
        rows = passed([batch(tokens)] if at_once else one_by_one(tokens))
        assert texts(rows) == [before, f"[redacted:{kind}]", "", " and on"], cut


@each_secret
def test_a_secret_in_single_characters_is_masked(name: str, kind: str, secret: str) -> None:
    before = BEFORE.get(name, "My own: ")
    rows = passed(one_by_one([*before, *secret, *" and on"]))

    assert texts(rows) == [*before, f"[redacted:{kind}]", *[""] * (len(secret) - 1), *" and on"]


@each_secret
def test_what_shares_an_event_with_a_secret_stays(name: str, kind: str, secret: str) -> None:
    before = BEFORE.get(name, "My own: ")
    rows = passed(one_by_one([before + secret[:4], secret[4:9], secret[9:] + " and", " on"]))

    assert texts(rows) == [f"{before}[redacted:{kind}]", "", " and", " on"]


def test_two_secrets_in_one_event_have_two_marks() -> None:
    key = "sk-0123456789abcdef"

    assert texts(passed([batch([f"a {key} b {key[:5]}", f"{key[5:]} c"])])) == [
        "a [redacted:api_key] b [redacted:api_key]",
        " c",
    ]


def test_parts_that_interleave_are_masked_apart() -> None:
    key, token = "sk-0123456789abcdef", "ghp_0123456789abcdefABCDEF"
    tokens = [key[:3], token[:7], key[3:9], token[7:20], key[9:], token[20:], " a", " b"]
    rows = passed(one_by_one(tokens, [0, 1, 0, 1, 0, 1, 0, 1]))

    assert texts(rows) == ["[redacted:api_key]", "[redacted:api_key]", "", "", "", "", " a", " b"]


def test_one_part_does_not_complete_the_secret_of_another() -> None:
    tokens = ["sk-01234567", "89abcdef"]

    assert texts(passed([batch(tokens, [0, 1])])) == tokens


def test_times_parts_and_counts_stay() -> None:
    tokens = ["a ", "sk-0123", "x", "456789abcdef", " b", "y"]
    given_rows = list(batch(tokens, [0, 0, 1, 0, 0, 1]))
    rows = passed([batch(tokens, [0, 0, 1, 0, 0, 1])])

    assert rows == [
        row._replace(token=token)
        for row, token in zip(given_rows, ["a ", "[redacted:api_key]", "x", "", " b", "y"], strict=True)
    ]


def test_events_leave_in_the_order_they_came() -> None:
    redactor = CallRedactor()

    assert texts(redactor.feed(batch(["hello ", "sk-012", "x", "y"], [0, 0, 1, 1]))) == ["hello "]
    assert texts(redactor.feed(batch(["z"], [1]))) == []
    assert texts(redactor.feed(batch(["3456789abcdef."], [0]))) == ["[redacted:api_key]", "x", "y", "z", "."]


def test_parts_are_announced_at_once_and_only_once() -> None:
    part = Part(0, "text")
    redactor = CallRedactor()
    held = redactor.feed(batch(["sk-0123"], parts=(part,)))

    assert (len(held), held.parts) == (0, (part,))
    assert redactor.feed(TokenBatch((), (), (), ())).parts == ()
    assert (len(last := redactor.finish()), last.parts) == (1, ())


def entries(*tokens: str) -> list[dict[str, Any]]:
    """Log-probabilities of an event that holds these tokens."""
    return [{"token": token, "logprob": -0.5, "bytes": list(token.encode())} for token in tokens]


def test_numbers_of_tokens_and_log_probabilities_follow_their_events() -> None:
    redactor = CallRedactor()
    a, sk, c, last_sk = entries("a ", ""), entries("sk-0123"), entries(" c"), entries(" sk")
    first = redactor.feed(batch(["a ", "sk-0123"], n_tokens={0: 1, 1: 2}, logprobs={0: a, 1: sk}))
    second = redactor.feed(
        batch(
            ["456789abcdef", " b", " c", " sk"],
            n_tokens={0: 3, 1: 4, 3: 6},
            logprobs={0: entries("456789abcdef"), 2: c, 3: last_sk},
        )
    )
    last = redactor.finish()

    assert (first.n_tokens, first.logprobs) == ({0: 1}, {0: a})
    assert (second.token, second.n_tokens) == (["[redacted:api_key]", "", " b", " c"], {0: 2, 1: 3, 2: 4})
    assert second.logprobs == {3: c}
    assert (last.token, last.n_tokens, last.logprobs) == ([" sk"], {0: 6}, {0: last_sk})


@pytest.mark.parametrize(
    ("logprobs", "kept"),
    [
        (entries("a", " word "), True),
        ([{"token": "\\xf0", "bytes": [97, 32]}, {"token": "\\x9f", "bytes": list(b"word ")}], True),
        ([{"tokens": ["a", " word "], "top_logprobs": [{"a": -1, "b": -2}], "text_offset": [0, 1]}], True),
        ([-0.5, -0.25], True),
        (entries("another text"), False),
        ([{"top_logprobs": [{"token": "alone"}]}], False),
        ([*entries("a word "), {"top_logprobs": [{"token": "sk-0123456789abcdef"}]}], False),
        ([*entries("a word "), {"top_logprobs": [{"sk-0123456789abcdef": -1}]}], False),
        ([*entries("a word "), {"top_logprobs": [{"token": "", "bytes": list(b"sk-0123456789abcdef")}]}], False),
    ],
)
def test_log_probabilities_that_tell_more_than_their_event_are_not_kept(logprobs: Any, kept: bool) -> None:
    (row,) = passed([batch(["a word "], logprobs={0: logprobs})])

    assert (row.token, row.logprobs) == ("a word ", logprobs if kept else None)


PROSE = (
    "Ask her: the desk-lamp costs 42.50 € (3 × 14), since 2023-11-23 18:00:00; see https://example.com/a?b=c#d or "
    "http://localhost:8080/x. 'Task-oriented' bearers of risk-averse keys, e.g. 0.1234567890123456789 "
    "and 1763920800123456, hf_hub and sk-learn, -----BEGIN CERTIFICATE-----, eyJ, 東京は2023年に。 Bearer "
    "authentication needs care. "
)


def test_ordinary_prose_is_unchanged_and_at_most_its_last_word_is_held() -> None:
    words = regex.findall(r"\s*\S+|\s+", PROSE)
    redactor = CallRedactor()
    out: list[str | None] = []
    for i, one in enumerate(one_by_one(words)):
        out += texts(redactor.feed(one))
        waiting = "".join(words[len(out) : i + 1])
        # A header, and what `Bearer` announces, are more than one word.
        assert len(waiting.split()) <= 1 or waiting.split()[0] in {"-----BEGIN", "Bearer"}, waiting
    out += texts(redactor.finish())

    assert out == words


def test_prose_that_ends_no_word_is_not_copied() -> None:
    one = batch([" the", " quick", " fox"])
    out = CallRedactor().feed(one)

    assert (out.token is one.token, out.offset_us is one.offset_us) == (True, True)


@pytest.mark.parametrize(
    "text",
    [
        "task-management-system-design-document",
        "sk-short",
        "4111 1111 1111 1112",
        "4111-1111 1111-1111",
        "3.141592653589793238",
        "https://user@example.com/a:b@c",
        "bearer responsibilities",
        "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A\n-----END PUBLIC KEY-----",
        "eyJhbGciOiJIUzI1NiJ9 alone",
    ],
)
def test_what_only_resembles_a_secret_stays(text: str) -> None:
    assert redact_text(text) == text
    assert joined(passed(one_by_one(text))) == {0: text}


def test_a_card_among_other_digits_is_found() -> None:
    assert redact_text("2235 4111 1111 1111 1111 12") == "2235 [redacted:card_number] 12"


def test_text_held_for_two_seconds_by_another_part_is_masked_whole() -> None:
    redactor = CallRedactor()
    redactor.feed(batch(["key sk-0123"]))

    assert texts(redactor.feed(batch(["x"], [1], start_us=HOLD_US))) == []
    assert texts(redactor.feed(batch(["y"], [1], start_us=HOLD_US + 1))) == ["key [redacted:undecided]", "x", "y"]


def test_what_continues_a_secret_that_was_masked_early_is_masked_without_a_second_mark() -> None:
    redactor = CallRedactor()
    redactor.feed(batch(["key sk-0123"]))
    redactor.feed(batch(["no"], [1], start_us=HOLD_US + 1))

    assert texts(redactor.feed(batch(["4567", "89abcdef", " on"], start_us=HOLD_US + 2))) == ["", "", " on"]


def test_what_turns_out_harmless_goes_on_plainly() -> None:
    redactor = CallRedactor()
    redactor.feed(batch(["see sk-lea"]))
    redactor.feed(batch(["no"], [1], start_us=HOLD_US + 1))

    assert texts(redactor.feed(batch(["rn", " and on."], start_us=HOLD_US + 2))) == ["rn", " and on."]


def test_a_secret_begun_by_a_prefix_that_left_is_marked_where_it_goes_on() -> None:
    redactor = CallRedactor()
    redactor.feed(batch(["key sk-"]))

    assert texts(redactor.feed(batch(["no"], [1], start_us=HOLD_US + 1))) == ["key sk-", "no"]
    assert texts(redactor.feed(batch(["01234567", "89abcdef", " on"], start_us=HOLD_US + 2))) == [
        "[redacted:api_key]",
        "",
        " on",
    ]


@each_secret
def test_a_secret_that_was_held_too_long_shows_no_more_than_what_is_public(name: str, kind: str, secret: str) -> None:
    before = BEFORE.get(name, "My own: ")
    for cut in range(1, len(secret)):
        late = [batch(["no"], [1], start_us=2 * HOLD_US), batch([secret[cut:], " and on"], start_us=3 * HOLD_US)]
        rows = passed([batch([before, secret[:cut]]), *late])
        shown = texts(row for row in rows if row.part == 0)
        if shown[1] == secret[:cut]:
            assert secret[:cut] in OPENINGS or (cut <= 6 and secret[:cut].isdigit())
            assert shown == [before, secret[:cut], f"[redacted:{kind}]", " and on"]
        else:
            assert shown[1] in {"[redacted:undecided]", f"[redacted:{kind}]"}
            assert shown == [before, shown[1], "", " and on"]


@pytest.mark.parametrize(("end", "shown"), [("in 2023", "in 2023"), ("is 4111111", "is [redacted:undecided]")])
def test_a_number_that_ends_a_part_is_shown_if_it_is_short(end: str, shown: str) -> None:
    redactor = CallRedactor()
    redactor.feed(batch([end]))

    assert texts(redactor.feed(batch(["no"], [1], start_us=HOLD_US + 1))) == [shown, "no"]


def test_a_secret_without_end_is_held_for_four_thousand_characters_and_masked_for_good() -> None:
    redactor = CallRedactor()
    tokens = ["-----BEGIN PRIVATE KEY-----\n", *["MIIEowIBAAKCAQEA\n"] * 1000, "-----END PRIVATE", " KEY-----", " on."]
    out: list[str | None] = []
    most = 0
    for i, one in enumerate(one_by_one(tokens)):
        out += texts(redactor.feed(one))
        most = max(most, sum(map(len, tokens[len(out) : i + 1])))
    out += texts(redactor.finish())

    assert out == ["[redacted:private_key]", *[""] * 1002, " on."]
    assert HOLD_CHARS - 20 < most <= HOLD_CHARS


def test_the_end_of_a_long_secret_is_found_also_where_it_was_cut_late() -> None:
    redactor = CallRedactor()
    redactor.feed(batch(["-----BEGIN PRIVATE KEY-----\n", *["MIIEowIBAAKCAQEA\n"] * 1000, "-----END PRIVATE"]))
    redactor.feed(batch(["no"], [1], start_us=2 * HOLD_US))

    assert texts(redactor.feed(batch([" KEY-----", " on"], start_us=3 * HOLD_US))) == ["", " on"]


def test_a_megabyte_in_one_event_passes() -> None:
    text = "word " * 200_000 + "sk-0123456789abcdef"

    assert texts(passed([batch([text])])) == ["word " * 200_000 + "[redacted:api_key]"]


@pytest.mark.parametrize("text", ["eyJ-", "-----BEGIN ", "://a:", "4111 ", "sk-a.", "eyJabcdefgh.", "Bearer "])
def test_text_made_to_be_slow_is_not(text: str) -> None:
    started = time.process_time()
    passed([batch([text * 20_000])])
    # A tenth of a second where this was written; a search that is quadratic takes minutes.
    assert time.process_time() - started < 5


def test_a_pattern_of_a_plugin_masks_too() -> None:
    rules = Rules([Pattern("badge", r"(?<![A-Z])EMP-[0-9]{6}(?![0-9])")])

    assert redact_text("I am EMP-123456.", rules) == "I am [redacted:badge]."
    assert texts(passed(one_by_one(["I am EM", "P-123", "456", "."]), rules)) == ["I am [redacted:badge]", "", "", "."]


def test_a_redactor_of_a_plugin_decides_about_its_matches() -> None:
    @dataclass(frozen=True)
    class Even:
        kind = "even"
        pattern = regex.compile("<[0-9]+>")

        def is_secret(self, match: str) -> bool:
            return int(match[1:-1]) % 2 == 0

    rules = Rules([Even()])

    assert redact_text("<11> <12>", rules) == "<11> [redacted:even]"
    assert texts(passed(one_by_one(["<1", "1> <", "12", "> ."]), rules)) == ["<1", "1> [redacted:even]", "", " ."]


def test_what_a_plugin_may_want_masked_does_not_leave_early() -> None:
    redactor = CallRedactor(Rules([Pattern("pin", "[0-9]{5}")]))
    redactor.feed(batch(["pin 23"]))

    assert texts(redactor.feed(batch(["no"], [1], start_us=HOLD_US + 1))) == ["pin [redacted:undecided]", "no"]


each_optional = pytest.mark.parametrize(("kind", "secret"), OPTIONAL_SECRETS.values(), ids=OPTIONAL_SECRETS)
WITH_OPTIONAL = Rules(chosen(OPTIONAL_KINDS))


def test_each_optional_kind_has_its_pattern() -> None:
    assert tuple(patterns.OPTIONAL) == OPTIONAL_KINDS
    assert [pattern.kind for pattern in patterns.OPTIONAL.values()] == [*OPTIONAL_KINDS]


@each_optional
def test_an_optional_kind_is_masked_only_where_it_is_asked_for(kind: str, secret: str) -> None:
    for text in (f"Ask {secret}.", f"<{secret}>", f"{secret}", f'{{"to":"\\n{secret}", "also":"\\u201c{secret}"}}'):
        assert redact_text(text) == text
        assert redact_text(text, WITH_OPTIONAL) == text.replace(secret, f"[redacted:{kind}]")


@each_optional
def test_an_optional_kind_is_masked_wherever_it_is_cut(kind: str, secret: str) -> None:
    for cut in range(1, len(secret)):
        rows = passed(one_by_one(["Ask ", secret[:cut], secret[cut:], "; now"]), WITH_OPTIONAL)
        assert texts(rows) == ["Ask ", f"[redacted:{kind}]", "", "; now"], cut
    rows = passed(one_by_one(["Ask ", *secret, *"; now"]), WITH_OPTIONAL)
    assert texts(rows) == ["Ask ", f"[redacted:{kind}]", *[""] * (len(secret) - 1), *"; now"]


@pytest.mark.parametrize(
    "text",
    [
        "on 2023-11-23 at 18:00:00.123456, 192.168.178.100, 1,234,567.89 or 0.123456789",
        "SN 1234 5678, 12 345 678, 1763920800123456, §§ 433-453, p. 555",
        "@jane, a @ b.c, jane@localhost, https://example.com/@jane, x@y",
    ],
)
def test_what_only_resembles_an_optional_kind_stays(text: str) -> None:
    assert redact_text(text, WITH_OPTIONAL) == text
    assert joined(passed(one_by_one(text), WITH_OPTIONAL)) == {0: text}


@pytest.mark.parametrize(
    ("end", "shown"),
    [("Ask jane", "Ask jane"), ("in 2023", "in 2023"), ("Ask jane@ex", "Ask [redacted:undecided]"),
     ("call 555-123-45", "call [redacted:undecided]"), ("is sk-0123", "is [redacted:undecided]")],
)  # fmt: skip
def test_a_word_that_ends_a_part_is_shown_unless_it_looks_like_more(end: str, shown: str) -> None:
    redactor = CallRedactor(WITH_OPTIONAL)
    redactor.feed(batch([end]))

    assert texts(redactor.feed(batch(["no!"], [1], start_us=HOLD_US + 1))) == [shown, "no!"]


def test_a_pattern_that_matches_nothing_at_all_is_no_trap() -> None:
    assert redact_text("aab", Rules([Pattern("a", "a*")])) == "[redacted:a]b"


def test_a_pattern_that_cannot_be_compiled_is_named() -> None:
    with pytest.raises(ValueError, match=r"^redaction pattern 'badge': missing \).*; correct the expression$"):
        Pattern("badge", "(EMP")


def test_overlapping_secrets_have_one_mark() -> None:
    rules = Rules([Pattern("first", "abcd"), Pattern("second", "cdef")])

    assert redact_text("xabcdefx", rules) == "x[redacted:first]x"


def test_json_is_masked_in_texts_and_keys_at_any_depth() -> None:
    key = "sk-0123456789abcdef"

    assert redact_json({"a": [key, 1, None, {"b": f"is {key}"}], key: True, "c": ("d", 1.5)}) == {
        "a": ["[redacted:api_key]", 1, None, {"b": "is [redacted:api_key]"}],
        "[redacted:api_key]": True,
        "c": ["d", 1.5],
    }


# Ends only after 2^n steps, for n letters.
ENDLESS = r"(?:a|aa)+!"
HARD = "a" * 60


@pytest.mark.usefixtures("lenient")
def test_what_a_pattern_cannot_be_done_with_is_masked_whole_and_named_once(caplog: pytest.LogCaptureFixture) -> None:
    faults.forget()
    rules = Rules([Pattern("endless", ENDLESS)])
    started = time.process_time()

    assert redact_text("aaa aa!", rules) == "aaa [redacted:endless]"
    assert redact_text(f"before {HARD} after", rules) == "[redacted:endless]"
    # It rests: nothing that it would have searched gets out, and it takes no time.
    assert redact_json({"a": ["one", "", 5]}, rules) == {"[redacted:endless]": ["[redacted:endless]", "", 5]}
    assert time.process_time() - started < 1
    (record,) = caplog.records
    assert record.getMessage() == (
        "redaction pattern 'endless': a search did not end in time, what it was searching is masked whole; correct it. "
        "The program is not affected."
    )
    assert faults.summary().keys() == {"redaction pattern 'endless'"}


@pytest.mark.usefixtures("lenient")
def test_a_pattern_is_tried_again_after_its_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "REST_S", 0.05)
    rules = Rules([Pattern("endless", ENDLESS)])

    assert redact_text(HARD, rules) == "[redacted:endless]"
    time.sleep(0.06)
    assert redact_text("harmless", rules) == "harmless"


@pytest.mark.usefixtures("lenient")
def test_a_secret_that_ends_behind_a_search_that_was_given_up_shows_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "REST_S", 0.05)
    redactor = CallRedactor(Rules([Pattern("endless", ENDLESS), Pattern("badge", "EMP-[0-9]{6}")]))
    first = redactor.feed(batch(["see ", f"{HARD} EMP-12"]))
    time.sleep(0.06)
    second = redactor.feed(batch(["3456", "; on", "wards"], start_us=100))
    rows = [*first, *second, *redactor.finish()]

    assert texts(rows)[:2] == ["[redacted:endless]", ""]
    assert "3456" not in "".join(row.token or "" for row in rows)
    assert len(rows) == 5


@pytest.mark.usefixtures("lenient")
def test_what_a_redactor_fails_of_is_masked_whole() -> None:
    @dataclass(frozen=True)
    class Broken:
        kind = "broken"
        pattern = regex.compile("[0-9]+")

        def is_secret(self, match: str) -> bool:
            raise OSError("no list of numbers")

    faults.forget()
    rows = passed([batch(["no digit ", "yet", " but 1 "])], Rules([Broken()]))

    assert texts(rows) == ["[redacted:broken]", "", ""]
    assert faults.summary()["redaction pattern 'broken'"]["last"] == "OSError: no list of numbers"


@pytest.mark.parametrize("pattern", [re.compile("a"), "a", None])
def test_what_is_no_redactor_is_refused(pattern: Any) -> None:
    @dataclass
    class Wrong:
        kind = "wrong"

    wrong: Any = Wrong()
    wrong.pattern = pattern

    with pytest.raises(
        TypeError, match="redactor 'wrong': its pattern has to be one that the regex library has compiled"
    ):
        Rules([wrong])


@pytest.mark.parametrize("size", range(60, 100, 3))
def test_the_beginning_of_a_text_ends_with_no_beginning_of_a_secret(size: int) -> None:
    text = f"{'word ' * 13}sk-0123456789abcdef and on, at length"
    whole = redact_text(text)
    head = Rules().head(text, size)

    assert whole.startswith(head.removesuffix("]"))
    assert len(head) >= 60
    assert "sk-0" not in head


def test_numbers_and_objects_are_masked_as_the_text_they_become() -> None:
    class Own:
        def __str__(self) -> str:
            return "my sk-0123456789abcdef"

    assert redact_json({"card": 4111111111111111, "n": 1763920800123456, "f": 0.5, "t": True, ("a", 1): Own()}) == {
        "card": "[redacted:card_number]",
        "n": 1763920800123456,
        "f": 0.5,
        "t": True,
        "('a', 1)": "my [redacted:api_key]",
    }


def test_an_event_that_is_no_text_loses_nothing_but_its_text() -> None:
    odd: Any = ["a ", None, 5, " sk-0123", "456789abcdef."]

    assert texts(passed([batch(odd)])) == ["a ", "\ufffd", "\ufffd", " [redacted:api_key]", "."]


FRAGMENTS = [
    *(BEFORE.get(name, "") + secret for name, (_, secret) in SECRETS.items()),
    *(secret[: len(secret) // 2] for _, secret in SECRETS.values()),
    *(
        "s",
        "sk",
        "sk-",
        "ey",
        "eyJ",
        "-",
        "-----",
        "-----BEGIN ",
        "-----END ",
        "://",
        ":",
        "@",
        ".",
        "Bearer",
        "g",
        "h",
    ),
    *(secret for _, secret in OPTIONAL_SECRETS.values()),
    *(secret[: len(secret) // 2] for _, secret in OPTIONAL_SECRETS.values()),
    *("+", "@", "jane", ".de", "555", "(0", "/", "\\u201c", "\\u00"),
    *("4111", "2", "42 ", "378282", "-", " ", "\n", "\\n", "hello", " world", "é", "東京", "a", "0", ""),
]


@st.composite
def streams(draw: st.DrawFn) -> list[TokenBatch]:
    """Up to three parts, each a text of secrets, halves of secrets and harmless words, cut and interleaved anyhow."""
    fragments = st.lists(st.sampled_from(FRAGMENTS), max_size=8).map("".join)
    waiting = dict(enumerate(draw(st.lists(fragments, min_size=1, max_size=3))))
    turns = cycle(draw(st.lists(st.sampled_from(range(len(waiting))), max_size=8)) + list(waiting))
    sizes = cycle(draw(st.lists(st.integers(1, 30), min_size=1, max_size=8)))
    tokens, part = [], []
    while any(waiting.values()):
        number, size = next(turns), next(sizes)
        tokens.append(waiting[number][:size])
        part.append(number)
        waiting[number] = waiting[number][size:]
    cuts = sorted({0, len(tokens), *draw(st.lists(st.integers(0, len(tokens)), max_size=10))})
    return [batch(tokens[a:b], part[a:b], start_us=10 * a) for a, b in pairwise(cuts)]


def assert_masked_as_joined(batches: list[TokenBatch], rules: Rules) -> None:
    rows = [row for one in batches for row in one]
    out = passed(batches, rules)

    assert [row._replace(token=None) for row in out] == [row._replace(token=None) for row in rows]
    assert joined(out) == {part: redact_text(text, rules) for part, text in joined(rows).items()}


@given(streams())
# A card that begins with the end of a key: only together are they one secret.
@example([batch(["sk-0123456789abcdefgh4111 "]), batch(["1111 1111 1111"])])
@example([batch(["Bear"]), batch(["er "]), batch(["Bearer 0123"]), batch(["4567 "])])
def test_a_stream_is_masked_as_its_joined_text_is(batches: list[TokenBatch]) -> None:
    assert_masked_as_joined(batches, BUILT_IN)


@given(streams())
# The end of a domain is its last letter, digits behind it included.
@example([batch(["jane@doe.example"]), batch(["y1"]), batch(["N.e"])])
def test_a_stream_is_masked_as_its_joined_text_is_with_optional_kinds_too(batches: list[TokenBatch]) -> None:
    assert_masked_as_joined(batches, WITH_OPTIONAL)
