"""Control arms: fine-tuning without pruning, and pruning all at once, for as many rounds as the
study prunes.

Pruned models also were fine-tuned for longer than the dense model. The arm ``unpruned`` has the
same rounds of fine-tuning at sparsity 0, so that the rise over the dense model that is due to
seeing the data again is known apart from that due to pruning. The arm ``one_shot`` prunes to the
target before the first round and then fine-tunes as often, so that the effect of pruning little by
little is known apart from that of pruning. Both are undefended.
"""

from dataclasses import replace
from typing import Literal, get_args

from wemem.pruning import Schedule

Control = Literal["unpruned", "one_shot"]
CONTROLS: tuple[Control, ...] = get_args(Control)


def control_schedule(control: Control, schedule: Schedule) -> Schedule | None:
    """The schedule of a control arm beside a study's own; None if the two are the same.

    >>> control_schedule("unpruned", Schedule(0.6, rounds=3)).sparsities
    (0.0, 0.0, 0.0)
    >>> control_schedule("one_shot", Schedule(0.6, rounds=3)).sparsities
    (0.6, 0.6, 0.6)
    >>> control_schedule("one_shot", Schedule(0.6, rounds=3, kind="one_shot")) is None
    True
    """
    sparsity = 0.0 if control == "unpruned" else schedule.sparsity
    controlled = replace(schedule, sparsity=sparsity, kind="one_shot")
    return None if controlled.sparsities == schedule.sparsities else controlled
