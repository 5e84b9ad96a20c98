"""Notes: remarks in results, each a code with values, and the sentences that state them.

Files hold the code and the values, so that a program can read them. :func:`sentence` gives the
words when a note is shown.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Note:
    """A remark as a code and values; its ``str`` is a sentence without a full stop.

    Args:
        code: the code of the remark, a key of :data:`SENTENCES`.
        values: the numbers and names that the sentence states; a value may be a note.

    >>> str(Note("slow_tensors", {"mib": 32})), Note("requested").as_json()
    ('tensors above 32 MiB are slow', {'code': 'requested'})
    """

    code: str
    values: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return sentence(self.as_json())

    def as_json(self) -> dict[str, Any]:
        """Its form in ``results.json``."""
        plain = {name: value.as_json() if isinstance(value, Note) else value for name, value in self.values.items()}
        return {"code": self.code, **plain}


def sentence(note: str | Mapping[str, Any]) -> str:
    """The sentence of a note, without a full stop.

    Args:
        note: the note in the form of ``results.json``; earlier files hold the sentence itself. A
            note of an unknown code is spelled with its values.

    >>> sentence({"code": "copies", "copies": 1, "records": 3, "copy": 2, "original": 0})[:60]
    '1 of 3 records is a copy of another (record 2 of record 0); '
    >>> sentence({"code": "of_a_later_version", "records": 3})
    'of_a_later_version, records: 3'
    >>> sentence("the sentence itself")
    'the sentence itself'
    """
    if isinstance(note, str):
        return note
    values = {name: value for name, value in note.items() if name != "code"}
    if (write := SENTENCES.get(str(note.get("code")))) is not None:
        try:
            return write(**values)
        except (TypeError, ValueError, LookupError, AttributeError):  # values of another version, or an edited file
            pass
    return ", ".join([str(note.get("code")), *(f"{name}: {json.dumps(value)}" for name, value in values.items())])


def shown(note: str | Mapping[str, Any]) -> str:
    """A note as reports show it: a full sentence, which says where it is about the data."""
    text = sentence(note)
    if isinstance(note, str):
        return text
    return f"Data: {text}." if note.get("code") in ON_DATA else f"{text}."


def _class_numbers(names: Sequence[str], classes: int) -> str:
    shown_names = ", ".join(names) + (", ..." if len(names) < classes else "")
    return f"the labels {shown_names} are the classes 0..{classes - 1}"


def _copies(copies: int, records: int, copy: int, original: int) -> str:
    are = "is a copy of another" if copies == 1 else "are copies of others"
    return (
        f"{copies:,} of {records:,} records {are} (record {copy} of record {original}); a copy of a training record "
        "may count as a record that was not trained on; keep one of each"
    )


def _large_features(large: int, features: int, largest: int, size: float) -> str:
    are = "is" if large == 1 else "are"
    return (
        f"{large:,} of {features:,} features {are} large ({largest}, root mean square {size:,.3g}); networks "
        "learn badly from them; bring each to mean 0 and deviation 1, by numbers that you keep beside the model"
    )


def _weak_targets(named: float, reached: float, networks: bool, label: str = "", seed: int = 0) -> str:
    start = f"{label}, seed {seed}: the teachers" if label else "The teachers"
    other = "" if networks else "components = 0 for networks as teachers, "
    return (
        f"{start} name the class of {named:.1%} of the training records without having seen them, where a model that "
        f"learns the labels reaches {reached:.1%} on dev records, so that the pruned model may lose accuracy (this "
        f"says nothing about privacy); try {other}more clusters (smaller ones), which may leak more, or more records"
    )


def _left_out(attack: str, layout: str, signals: Sequence[str]) -> str:
    return f"{attack} was not run: it needs {layout} signals" + (f" with {', '.join(signals)}" if signals else "")


def _by_rule(reason: str) -> Callable[..., str]:
    """A reason for a backend, followed by the reason for fewer models at a time, if any."""

    def write(error: str = "", at_a_time: Mapping[str, Any] | None = None) -> str:
        return f"{reason}{error}" + (f"; {sentence(at_a_time)}" if at_a_time else "")

    return write


def _at_a_time(models: int, of: int, limit: Mapping[str, Any]) -> str:
    return f"{models} of {of} models at a time: {sentence(limit)}"


#: Reasons why a model does not count as made by the loop of the audited model.
LOOPS_UNLIKE = {
    "loops_in_call": (
        "{begun} loops of PruningEngine began and {ended} ended in the call of train for {model}; one must do both"
    ),
    "weights_unseen": (
        "{model} is a function whose weights are not seen; give the module, or a wemem.blocks.RecordModel of it"
    ),
    "other_weights": "{model} has not the weights with which its loop ended; return the module that the engine pruned",
    "no_certificate": (
        "no finished loop is known that ended with the weights of {model}; give the folder that engine.save wrote"
    ),
    "incomplete": "the loop of {model} cannot be compared: {problem}",
    "more_records": "the loop of {model} had {loop} records, and only {given} were meant for it",
    "same_as_another": "{model} has the same {what} as another model; train on the records that the call gives",
    "too_few": "{model} alone cannot show that train uses the records that it gets; have two models or more",
    "scored_otherwise": (
        "scored otherwise: the {part} of {model} or of the audited model were not estimated for its own records, in "
        "the same call, by wemem.memorization_scores or wemem.out_of_sample_targets"
    ),
    "other_recipe": "the loop of {model} had other settings than that of the audited model, in: {part}",
}  # fmt: skip


def _loops_unlike(model: str, reason: str, **values: Any) -> str:
    return "Audited by functions, not adaptive: " + LOOPS_UNLIKE[reason].format(model=model, **values)


#: Codes of notes on the data.
ON_DATA = (
    "class_numbers", "texts_cut", "channels_last", "pixels_scaled", "copies", "large_features", "features_in_file",
    "features_in_temporary_file", "unknown_categories", "unexpected_missing",
    "fewer_records",
)  # fmt: skip
#: The sentence of each code, from its values.
SENTENCES: Mapping[str, Callable[..., str]] = {
    "class_numbers": _class_numbers,
    "channels_last": "images {was} have their channels last and were moved to {moved}".format,
    "pixels_scaled": "pixels 0..255 were divided by 255, less 0.5, divided by 0.25, as images from folders are".format,
    "texts_cut": "{cut:,} of {texts:,} texts have more than {tokens} tokens and were cut".format,
    "fewer_records": "all {available:,} records are taken, fewer than the {records:,} of data.records".format,
    "unknown_categories": (
        "{values:,} values in {columns:,} column(s) ({most} has most) are no categories of the model's table, and are "
        "read as none of its categories"
    ).format,
    "unexpected_missing": (
        "{values:,} values in {columns:,} column(s) ({most} has most) are missing where the model's table has none "
        "missing; numbers are read as the mean, categories as none"
    ).format,
    "features_in_file": "the features are larger than memory_gib allows ({gib:.3g} GiB) and stay in their file".format,
    "features_in_temporary_file": (
        "the features are larger than memory_gib allows ({gib:.3g} GiB) and were put into a temporary file"
    ).format,
    "copies": _copies,
    "large_features": _large_features,
    "audited_file": "The audited model is the file {name}, SHA-256 {sha256}, by its answers in {runtime}".format,
    "unmatched_size": (
        "The audit is not adaptive in size: the adversary's {kind} were trained on {records} records, not on as many "
        "of each class as the victim; bring more records that the victim was not trained on"
    ).format,
    "scored_otherwise": (
        "The audit of defenses that read memorization scores is not adaptive: the adversary's models were scored "
        'otherwise than the victim; set scores.drawn_from = "own" and leave scores.file out'
    ).format,
    "victim_training_unknown": (
        "The victim's own training is not known to this study; its shadows and reference models were trained by "
        "the study's recipe and then pruned as the victim was"
    ).format,
    "constant_answers": (
        "{label}, seed {seed}: the audited model gives every audited record the same answer, so that no attack can "
        "find anything; check that it was loaded and trained, and that it reads its input"
    ).format,
    "split_leaks": (
        "Seed {seed}: a classifier that sees no model tells members from non-members by the records alone (AUC "
        "{auc:.1%} [{ci[0]:.1%}-{ci[1]:.1%}]). The two differ in themselves, so that every attack measures that "
        "difference beside the leak and its figures mean little; draw members and non-members from one source"
    ).format,
    "weak_targets": _weak_targets,
    "canaries_in_references": (
        "The given victim was trained without canaries; the worst case is that of reference models that were "
        "trained by the study's recipe with canaries"
    ).format,
    "outputs_alone": (
        "Audited by outputs alone: nothing certifies how the other models were made; no attack counts as adaptive"
    ).format,
    "loops_equal": (
        "The audit is adaptive: {models} models were trained by the loop that made the audited model, as far as the "
        "engine sees it; the training before pruning, learning rate schedules and augmentation it does not see"
    ).format,
    "loops_unlike": _loops_unlike,
    "attack_left_out": _left_out,
    "requested": _by_rule("requested"),
    "convolutions_on_cpu": _by_rule("rule: convolutions run faster one model after another on a CPU"),
    "no_convolutions": _by_rule("rule: no convolutions"),
    "convolutions_on_gpu": _by_rule("rule: convolutions run faster on streams beside each other on a GPU"),
    "not_vmappable": _by_rule("the model cannot be vmapped: "),
    "no_training": _by_rule("audited by its outputs"),
    "at_a_time": _at_a_time,
    "slow_tensors": "tensors above {mib:.3g} MiB are slow".format,
    "memory_ran_out": "memory ran out with {models}".format,
    "memory_needed": "{models} would take {needed_gib:.3g} GiB of {limit_gib:.3g} GiB".format,
}
