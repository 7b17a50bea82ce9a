"""Pseudonymisation: out and back again, however the answer is cut."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.sensitivity.pseudonyms import PLACEHOLDER, Pseudonyms, Restorer, mask_strings
from router.restore import EventRestorer, UnreadableEvent, restore_body


@dataclass(frozen=True)
class Span:
    start: int
    end: int
    type: str


NAMES = re.compile(r"tanaka|佐藤|o\"hara\n|suzuki", re.I)
MAILS = re.compile(r"[a-z]+@[a-z]+\.jp")


def find(text):
    mails = [Span(m.start(), m.end(), "EMAIL_ADDRESS") for m in MAILS.finditer(text)]
    taken = [(s.start, s.end) for s in mails]
    names = [
        Span(m.start(), m.end(), "PERSON")
        for m in NAMES.finditer(text)
        if not any(a < m.end() and m.start() < b for a, b in taken)
    ]
    return sorted([*mails, *names], key=lambda s: s.start)


def test_equal_values_have_equal_placeholders_and_others_have_others():
    pseudonyms = Pseudonyms()
    masked = pseudonyms.mask("Tanaka wrote to suzuki, suzuki to a@b.jp and x@y.jp", find)
    assert masked == "[PERSON_1] wrote to [PERSON_2], [PERSON_2] to [EMAIL_ADDRESS_1] and [EMAIL_ADDRESS_2]"
    assert len(set(pseudonyms.values.values())) == len(pseudonyms.values) == 4


def test_what_looks_like_a_placeholder_is_replaced_itself_and_comes_back():
    pseudonyms = Pseudonyms()
    text = "[PERSON_1] is a placeholder, 佐藤 is not"
    masked = pseudonyms.mask(text, find)
    assert masked == "[TEXT_1] is a placeholder, [PERSON_1] is not"
    assert Restorer(pseudonyms).whole(masked) == text


def test_keywords_are_not_masked():
    assert Pseudonyms().mask("秘", lambda text: [Span(0, 1, "KEYWORD")]) == "秘"


def test_nothing_of_a_value_is_shown():
    pseudonyms = Pseudonyms()
    pseudonyms.mask("tanaka", find)
    assert "tanaka" not in repr(pseudonyms) + repr(Restorer(pseudonyms))


words = st.sampled_from(
    ["tanaka", "佐藤", "a@b.jp", "x@y.jp", " ", "[", "]", "[PERSON_1]", "[EMAIL_", "_1]", "said", "［"]
)
texts = st.lists(words, max_size=12).map("".join)


@given(texts)
def test_masking_leaves_nothing_to_find_and_restoring_gives_it_back(text):
    pseudonyms = Pseudonyms()
    masked = pseudonyms.mask(text, find)
    assert not find(masked)
    assert Restorer(pseudonyms).whole(masked) == text


@given(texts, st.lists(st.integers(0, 200), max_size=8), texts)
def test_restoring_is_the_same_however_the_text_is_cut(text, cuts, noise):
    pseudonyms = Pseudonyms()
    answer = pseudonyms.mask(text, find) + noise + pseudonyms.mask("佐藤", find)
    whole = Restorer(pseudonyms)
    expected = whole.whole(answer)
    pieces = Restorer(pseudonyms)
    places = sorted({0, len(answer), *(c for c in cuts if c < len(answer))})
    out = "".join(pieces.feed(answer[a:b]) for a, b in itertools.pairwise(places)) + pieces.flush()
    assert out == expected
    assert pieces.unrestored == whole.unrestored


@given(texts)
def test_only_what_could_begin_a_placeholder_is_held_back(text):
    pseudonyms = Pseudonyms()
    pseudonyms.mask("tanaka a@b.jp", find)
    restorer = Restorer(pseudonyms)
    restorer.feed(text)
    held = restorer._held
    assert held == "" or (held.startswith("[") and len(held) < 50 and not PLACEHOLDER.search(held))


def test_what_is_none_of_ours_stays_and_is_counted():
    restorer = Restorer(Pseudonyms())
    assert restorer.whole("[PERSON_7] and [NOTE]") == "[PERSON_7] and [NOTE]"
    assert restorer.unrestored == 1


def test_json_keeps_its_keys_and_what_must_stay():
    pseudonyms = Pseudonyms()
    body = {"model": "tanaka", "messages": [{"role": "user", "content": ["suzuki", 1, None]}], "tanaka": True}
    masked = mask_strings(body, pseudonyms, find, frozenset({"model"}))
    assert masked == {
        "model": "tanaka",
        "messages": [{"role": "user", "content": ["[PERSON_1]", 1, None]}],
        "tanaka": True,
    }


# --- answers of the API -------------------------------------------------------------------------------------------


def masked():
    pseudonyms = Pseudonyms()
    for text in ("tanaka", "佐藤", 'o"hara\n', "a@b.jp"):
        pseudonyms.mask(text, find)
    return pseudonyms


def test_a_whole_answer():
    body = {
        "choices": [
            {
                "message": {
                    "content": "Dear [PERSON_2], [PERSON_9]",
                    "tool_calls": [{"function": {"name": "mail", "arguments": '{"to": "[PERSON_3]", "n": 1}'}}],
                }
            }
        ],
        "usage": {"prompt_tokens": 1},
    }
    out, unrestored = restore_body(json.dumps(body).encode(), masked())
    found = json.loads(out)
    message = found["choices"][0]["message"]
    assert message["content"] == "Dear 佐藤, [PERSON_9]"
    assert json.loads(message["tool_calls"][0]["function"]["arguments"]) == {"to": 'o"hara\n', "n": 1}
    assert (unrestored, found["usage"]) == (1, {"prompt_tokens": 1})


def stream(pieces, arguments=(), text=False):
    """The events of a chat (or a completion) in these pieces of text, then these of a tool call's arguments."""

    def event(choice):
        body = {"id": "c", "object": "x", "choices": [{"index": 0, "finish_reason": None, **choice}]}
        return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"

    out = "" if text else event({"delta": {"role": "assistant"}})
    for piece in pieces:
        out += event({"text": piece} if text else {"delta": {"content": piece}})
    for piece in arguments:
        out += event({"delta": {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}})
    return out.encode()


ENDS = [
    b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n',
    b"data: [DONE]\n\n",
    b"",
]


def said(events, text=False):
    """(text, arguments) of a stream as a client puts it together."""
    content = arguments = ""
    for line in events.decode().splitlines():
        if line.startswith("data: ") and line != "data: [DONE]":
            for choice in json.loads(line[6:]).get("choices", []):
                holder = choice if text else choice.get("delta", {})
                content += holder.get("text" if text else "content") or ""
                for call in holder.get("tool_calls", []):
                    arguments += call["function"]["arguments"]
    return content, arguments


def cut(text, places):
    places = sorted({0, len(text), *(p % (len(text) + 1) for p in places)})
    return [text[a:b] for a, b in itertools.pairwise(places)]


numbers = st.lists(st.integers(0, 500), max_size=6)


@given(texts, numbers, numbers, numbers, st.sampled_from(ENDS), st.booleans())
def test_a_stream_is_the_same_however_it_is_cut(text, pieces, argument_pieces, bytes_cut, end, completion):
    pseudonyms = masked()
    answer = pseudonyms.mask(text, find) + " [PERSON_1"
    arguments = "" if completion else json.dumps({"to": pseudonyms.mask(text, find), "and": "[PERSON_3]"})
    raw = stream(cut(answer, pieces), cut(arguments, argument_pieces) if arguments else (), completion)
    raw += end.replace(b'"delta": {}', b'"text": ""') if completion else end
    restorer = EventRestorer(pseudonyms)
    out = b"".join(restorer.feed(piece) for piece in cut(raw, bytes_cut)) + restorer.flush()
    content, found = said(out, completion)
    assert content == text + " [PERSON_1"
    if arguments:
        assert json.loads(found) == {"to": text, "and": 'o"hara\n'}
    assert out.endswith(b"data: [DONE]\n\n") == end.endswith(b"data: [DONE]\n\n")


def test_events_of_other_kinds_pass():
    restorer = EventRestorer(masked())
    assert restorer.feed(b": ping\n\n") == b": ping\n\n"
    assert restorer.feed(b'event: error\ndata: {"error":{"message":"x"}}\n\n') == (
        b'event: error\ndata: {"error":{"message":"x"}}\n\n'
    )


def test_crlf_and_several_data_lines():
    restorer = EventRestorer(masked())
    raw = b'data: {"choices": [{"index": 0,\r\ndata: "delta": {"content": "[PERSON_2]"}}]}\r\n\r\n'
    assert said(restorer.feed(raw))[0] == "佐藤"


@pytest.mark.parametrize("raw", [b"data: {nope\n\n", b"data: \xff\xfe\n\n"])
def test_what_is_no_event_is_an_error_without_its_content(raw):
    with pytest.raises(UnreadableEvent) as caught:
        EventRestorer(masked()).feed(raw)
    assert "nope" not in str(caught.value)


def test_the_first_text_is_not_held_back():
    restorer = EventRestorer(masked())
    assert said(restorer.feed(stream(["Hello "])))[0] == "Hello "
    assert said(restorer.feed(stream(["[PER"])))[0] == ""
    assert said(restorer.feed(stream(["SON_1]!"])))[0] == "tanaka!"
