"""Writer of the records of leave-one-out audits and of attacks on canaries."""

from collections.abc import Sequence
from pathlib import Path

from wemem.files.atomic import write_atomically
from wemem.results.canary_records import write_canaries
from wemem.results.folder import CANARIES, TARGETS
from wemem.results.target_table import write_target_table
from wemem.study.outcome import Outcome


def write_records(out: Path, outcomes: Sequence[Outcome]) -> list[Path]:
    """Write the records of a study or an audit; the paths of the files, which may be none.

    Args:
        out: the output directory.
        outcomes: the outcomes, in the order of the runs in ``results.json``.
    """
    audits = [(o.label, o.seed, o.sparsity, o.targets) for o in outcomes if o.targets is not None]
    runs = [(i, o.label, o.seed, o.canary_records) for i, o in enumerate(outcomes) if o.canary_records is not None]
    if audits:
        write_atomically(out / TARGETS, lambda part: write_target_table(part, audits))
    if runs:
        write_atomically(out / CANARIES, lambda part: write_canaries(part, runs))
    return [*([out / TARGETS] if audits else []), *([out / CANARIES] if runs else [])]
