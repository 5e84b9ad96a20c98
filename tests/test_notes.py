"""Notes: codes and values in files, sentences where they are shown."""

import copy
import json
import string

import pytest
from jsonschema import Draft202012Validator

from results_example import make_results
from wemem.notes import ON_DATA, SENTENCES, Note, sentence, shown
from wemem.reporting.notes import notes
from wemem.results.combine import Source, combine
from wemem.results.schema import results_schema

COPIES = Note("copies", {"copies": 2, "records": 1500, "copy": 7, "original": 3}).as_json()
PART = Note("at_a_time", {"models": 2, "of": 6, "limit": Note("slow_tensors", {"mib": 32})})


def test_sentence_states_every_value():
    assert sentence(COPIES).startswith("2 of 1,500 records are copies of others (record 7 of record 3)")
    assert shown(COPIES) == f"Data: {sentence(COPIES)}."
    reason = Note("no_convolutions", {"at_a_time": PART})
    assert str(reason) == "rule: no convolutions; 2 of 6 models at a time: tensors above 32 MiB are slow"


def test_sentence_of_an_earlier_file_is_shown_as_it_is():
    assert shown("The audit is not adaptive in size.") == "The audit is not adaptive in size."


@pytest.mark.parametrize("code", SENTENCES)
def test_edited_values_are_spelled_out_and_never_an_error(code):
    assert shown({"code": code, "unforeseen": ["x"]})
    assert shown({"code": code, "at_a_time": "no mapping", "names": 3, "limit": [], "signals": 1})


def test_every_code_on_the_data_has_a_sentence():
    assert set(ON_DATA) <= set(SENTENCES)
    assert all(set(code) <= {*string.ascii_lowercase, *string.digits, "_"} for code in SENTENCES)


def test_schema_admits_notes_and_early_sentences_and_nothing_else():
    validator = Draft202012Validator(results_schema())
    results = make_results()
    results["notes"] = ["an early sentence", COPIES, Note("no_convolutions", {"at_a_time": PART}).as_json()]
    results["runs"][0]["backend"]["reason"] = PART.as_json()
    assert validator.is_valid(json.loads(json.dumps(results)))
    for wrong in ({"records": 3}, {"code": "Not A Code"}, {"code": "copies", "x": None}, 3, {"code": "a", "<b>": 1}):
        assert not validator.is_valid({**results, "notes": [wrong]})


def test_notes_that_folders_share_are_shown_once():
    one, other = make_results(), make_results()
    one["notes"], other["notes"] = [COPIES], [copy.deepcopy(COPIES), Note("scored_otherwise").as_json()]
    sources = [Source(name, results, [None] * len(results["runs"])) for name, results in (("a", one), ("b", other))]
    codes = [note["code"] for note in combine(sources).results["notes"]]
    assert codes == ["copies", "scored_otherwise"]
    assert notes({**one, "runs": []})[0] == shown(COPIES)
