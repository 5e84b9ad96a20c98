"""Readers under fire: whatever a file holds, a value or one line comes out, and memory stays
bounded.

``WEMEM_FUZZ=N`` tries N damaged files for each reader in place of a few, and another seed each
time: hours on demand.
"""

import os
import warnings

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from untrusted_files import READERS, REFUSED
from wemem.errors import InputError

EXAMPLES = int(os.environ.get("WEMEM_FUZZ", "25"))
#: Pieces that break parsers: ends of numbers, nesting, markers of formats, text that no encoding
#: has.
PIECES = [
    b"", b"\0",
    b"\xff\xff\xff\xff", b"\x00\x00\x00\x80", b"\x7f\xff\xff\xff\xff\xff\xff\xff", b"[" * 2000, b'{"a":' * 300,
    b"9" * 5000, b"-1", b"1e999", b"NaN", b"\"", b"\n", b"\r", b",", b"," * 3000, b"PK\x05\x06", b"PK\x06\x07", b"PAR1",
    b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\\ud800", b"../", b"a." * 1500, b"'''", b"0x" + b"f" * 3000,
]  # fmt: skip


def outcome(reader, path):
    """The value that a reader returns, or the line of its refusal; any other exception is what the
    test looks for.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return READERS[reader].read(path), ""
        except InputError as error:
            return None, str(error)


@pytest.mark.parametrize("reader", READERS)
def test_a_valid_file_is_read(reader, tmp_path):
    path = tmp_path / f"a{READERS[reader].suffix}"
    path.write_bytes(READERS[reader].valid())
    value, line = outcome(reader, path)
    assert (value is None) == (reader in REFUSED), line


@st.composite
def damage(draw, content):
    """A valid file after up to four changes: bytes changed, cut out, doubled, or replaced by a
    hostile piece.
    """
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        to = min(len(content), at + draw(st.sampled_from([0, 1, 4, 8, 64, len(content)])))
        pieces = [st.sampled_from(PIECES), st.binary(max_size=8), st.just(content[at:to]), st.just(content[at:to] * 2)]
        piece = draw(st.one_of(pieces))
        content = content[:at] + piece + content[to:]
    return content


@pytest.mark.parametrize("reader", READERS)
def test_a_damaged_file_gives_a_value_or_one_line_and_nothing_else(reader, tmp_path_factory):
    valid = READERS[reader].valid()
    folder = tmp_path_factory.mktemp("damaged")

    @settings(
        max_examples=EXAMPLES, deadline=None, derandomize="WEMEM_FUZZ" not in os.environ,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(content=damage(valid))
    def tried(content):
        path = folder / f"a{READERS[reader].suffix}"
        path.write_bytes(content)
        _, line = outcome(reader, path)
        assert "\n" not in line
        assert len(line) < 2000

    tried()


@pytest.mark.parametrize("reader", READERS)
def test_every_truncation_gives_a_value_or_one_line(reader, tmp_path):
    valid = READERS[reader].valid()
    path = tmp_path / f"a{READERS[reader].suffix}"
    for size in range(0, len(valid), max(1, len(valid) // 12)):
        path.write_bytes(valid[:size])
        _, line = outcome(reader, path)
        assert "\n" not in line


@pytest.mark.skipif("onnx" not in READERS, reason="needs onnx")
def test_names_in_an_onnx_file_that_are_no_text_are_refused(tmp_path):
    import onnx

    content = READERS["onnx"].valid()
    name = onnx.load_model_from_string(content).graph.input[0].name.encode()
    path = tmp_path / "a.onnx"
    path.write_bytes(content.replace(name, b"\xf3" * len(name)))
    value, line = outcome("onnx", path)
    assert value is None
    assert "UTF-8" in line
