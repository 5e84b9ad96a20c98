"""JSON and TOML documents: plain ones are read, and those that would take long or go too deep are refused."""

import tomllib

import pytest

from wemem.errors import InputError
from wemem.files.documents import DEPTH_LIMIT, parse_json, parse_toml


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def test_depth_is_counted_from_the_outermost_list():
    parse_json(nested(DEPTH_LIMIT - 1), "an example")
    with pytest.raises(InputError, match=f"at most {DEPTH_LIMIT} deep in an example"):
        parse_json(nested(DEPTH_LIMIT + 1), "an example")


@pytest.mark.parametrize("number", [2**64 - 1, -(2**63), 0, 1.5])
def test_numbers_that_arrays_hold_are_read(number):
    assert parse_json(f"[{number}]", "an example") == [number]
    assert parse_toml(f"a = {number}", "an example") == {"a": number}


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**400])
def test_larger_whole_numbers_are_refused(number):
    for refuse in (lambda: parse_json(f"[{number}]", "an example"), lambda: parse_toml(f"a = {number}", "an example")):
        with pytest.raises(InputError, match=r"64 bits|digits"):
            refuse()


@pytest.mark.parametrize("text", ["NaN", "Infinity", "1e400", "{", "", "[1,]", "\ufeff[]"])
def test_what_is_no_json_is_refused(text):
    with pytest.raises(InputError, match="expected JSON for an example"):
        parse_json(text, "an example")


@pytest.mark.parametrize("part", ["a", '"a b"', "'a'", "a ", "é" * 3])
def test_key_of_very_many_parts_is_refused_before_it_is_parsed(part):
    with pytest.raises((InputError, tomllib.TOMLDecodeError)):
        parse_toml(".".join([part] * 50_000) + " = 1", "an example")


def test_keys_and_texts_with_dots_are_read():
    text = 'a.b."c.d" = "one. two. three."\n[e.f]\ng = 1.5\n'
    assert parse_toml(text, "an example") == {"a": {"b": {"c.d": "one. two. three."}}, "e": {"f": {"g": 1.5}}}
