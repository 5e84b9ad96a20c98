"""What a running study shows: one live display on a terminal, plain lines elsewhere."""

import io

import pytest
from rich.console import Console

from wemem.pipeline.progress import Progress
from wemem.reporting.progress import LiveProgress, time_left


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class CountingFile(io.StringIO):
    """Counts what is written to it."""

    writes = 0

    def write(self, text: str) -> int:
        self.writes += 1
        return super().write(text)


def plain_console(clock: Clock) -> Console:
    """As where output goes to a file."""
    return Console(file=io.StringIO(), force_terminal=False, width=80, get_time=clock)


def terminal(clock: Clock, file: io.StringIO, height: int = 25, width: int = 80) -> Console:
    """As where a person watches."""
    return Console(
        file=file, force_terminal=True, force_interactive=True, width=width, height=height, get_time=clock,
        color_system=None, legacy_windows=False,
    )  # fmt: skip


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def shown(progress: LiveProgress, width: int = 80) -> str:
    """The display as it would be drawn now."""
    out = Console(file=io.StringIO(), force_terminal=False, width=width)
    out.print(progress._display())
    return written(out)


def run_two_stages(progress: Progress, clock: Clock) -> None:
    progress.plan(100.0)
    progress.begin("dense models", 25.0)
    progress.end(stored=True)
    progress.begin("rsw", 75.0)
    clock.now += 12.34
    progress.advance(0.5, "round 3/5")
    progress.end(stored=False)


def test_elsewhere_each_stage_is_one_plain_line():
    clock = Clock()
    console = plain_console(clock)
    with LiveProgress(console) as progress:
        run_two_stages(progress, clock)
        progress.warn("two\nlines")
    assert written(console).splitlines() == [
        " 25 %  dense models: found in store",
        "100 %  rsw: 12.3 s",
        "warning: two\\nlines",
        "2 stages in 12.3 s, 1 of them found in store; 100 % of the time was training and pruning",
    ]


def test_elsewhere_there_are_no_control_characters_and_no_breaks_even_in_long_hostile_names():
    clock = Clock()
    console = plain_console(clock)
    with LiveProgress(console) as progress:
        progress.plan(1.0)
        progress.begin("[red]x[/red] :smile: \x1b[2J\r\u202e" + "long " * 40, 1.0)
        progress.end(stored=False)
    lines = written(console).splitlines()
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)
    assert "[red]x[/red] :smile: \\x1b[2J\\r\\u202e" in lines[0]


def test_advancing_writes_nothing_by_itself():
    clock, file = Clock(), CountingFile()
    progress = LiveProgress(terminal(clock, file))
    progress.plan(1.0)
    progress.begin("stage", 1.0)
    for step in range(10_000):
        progress.advance(step / 10_000, "epoch")
    assert file.writes == 0


def test_display_says_where_the_study_is():
    clock = Clock()
    progress = LiveProgress(terminal(clock, io.StringIO()))
    progress.plan(100.0)
    progress.begin("first", 20.0)
    progress.end(stored=True)
    progress.begin("second", 20.0)
    clock.now += 10
    progress.end(stored=False)
    progress.begin("third", 40.0)
    clock.now += 10
    progress.advance(0.5, "round 3/5, epoch 4/21, 5 models training")
    text = shown(progress)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[0] == "first found in store"
    assert lines[1] == "second 10.0 s"
    assert lines[2] == "third 10.0 s"
    assert lines[3].endswith("50 % round 3/5, epoch 4/21, 5 models training")
    assert lines[4] == "whole study 20.0 s"
    # 40 of work took 20 s, the 20 from the store took none; 40 are left
    assert lines[5].endswith("60 % about 20.0 s left")


def test_stored_stages_do_not_make_the_rest_look_quick():
    clock = Clock()
    progress = LiveProgress(terminal(clock, io.StringIO()))
    progress.plan(1_000.0)
    progress.begin("stored", 900.0)
    progress.end(stored=True)
    assert "estimating" in shown(progress)
    progress.begin("computed", 50.0)
    clock.now += 100
    progress.end(stored=False)
    assert "about 1 min 40 s left" in shown(progress)


def test_no_time_is_told_before_anything_was_computed():
    assert time_left(100.0, 0.0, 5.0) is None
    assert time_left(100.0, 1.0, 0.5) is None


@pytest.mark.parametrize(("fraction", "percent"), [(-1.0, "0 %"), (7.0, "100 %"), (float("nan"), "0 %")])
def test_fraction_out_of_range_is_cut(fraction: float, percent: str):
    clock = Clock()
    progress = LiveProgress(terminal(clock, io.StringIO()))
    progress.plan(10.0)
    progress.begin("stage", 10.0)
    progress.advance(fraction, "somewhere")
    assert f" {percent} somewhere" in " ".join(shown(progress).split())


def test_more_work_than_planned_ends_at_all_of_it():
    clock = Clock()
    console = plain_console(clock)
    with LiveProgress(console) as progress:
        progress.begin("unplanned", 5.0)
        progress.end(stored=False)
        progress.begin("no work", 0.0)
        progress.end(stored=False)
    assert written(console).splitlines()[:2] == ["100 %  unplanned: 0.0 s", "100 %  no work: 0.0 s"]


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_display_keeps_to_the_width_of_the_terminal(width: int):
    clock = Clock()
    progress = LiveProgress(terminal(clock, io.StringIO(), width=width))
    progress.plan(10.0)
    for _ in range(9):
        progress.begin("a stage with a name that is longer than some terminals are wide [bold]", 1.0)
        progress.end(stored=False)
    progress.begin("x" * 300, 1.0)
    progress.advance(0.3, "y" * 300)
    lines = shown(progress, width).splitlines()
    assert len(lines) == 9
    assert max(map(len, lines)) <= width


def test_low_terminal_drops_finished_stages_first():
    clock = Clock()
    progress = LiveProgress(terminal(clock, io.StringIO(), height=6))
    progress.plan(2.0)
    progress.begin("finished", 1.0)
    progress.end(stored=False)
    progress.begin("running", 1.0)
    text = shown(progress)
    assert "finished" not in text
    assert "running" in text


def test_share_of_training_is_of_all_the_time_that_passed():
    clock = Clock()
    console = plain_console(clock)
    with LiveProgress(console) as progress:
        progress.begin("dense models", 1.0)
        clock.now += 60
        progress.end(stored=False)
        progress.begin("confidence on dense", 0.0)
        clock.now += 15
        progress.end(stored=False)
        clock.now += 5
    assert written(console).endswith("2 stages in 1 min 20 s; 75 % of the time was training and pruning\n")


def test_terminal_gets_one_display_that_leaves_a_summary_and_the_cursor():
    clock, file = Clock(), io.StringIO()
    with LiveProgress(terminal(clock, file)) as progress:
        run_two_stages(progress, clock)
    text = file.getvalue()
    assert text.rstrip().endswith("1 of them found in store; 100 % of the time was training and pruning")
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1


def test_failure_leaves_the_cursor_and_what_was_going_on_and_no_summary():
    clock, file = Clock(), io.StringIO()

    def break_off() -> None:
        with LiveProgress(terminal(clock, file)) as progress:
            progress.plan(2.0)
            progress.begin("first", 1.0)
            progress.end(stored=False)
            progress.begin("the one that broke", 1.0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        break_off()
    last = file.getvalue().rpartition("\x1b[?25h")[0]
    assert "the one that broke" in last
    assert "1 stage in" not in file.getvalue()


def test_warning_stands_above_the_display():
    clock, file = Clock(), io.StringIO()
    with LiveProgress(terminal(clock, file)) as progress:
        progress.plan(1.0)
        progress.begin("stage", 1.0)
        progress.warn("[b]slow\x07")
    assert "warning: [b]slow\\x07\n" in file.getvalue()


def test_end_without_begin_is_an_error_of_the_caller():
    with pytest.raises(RuntimeError, match="begin"):
        LiveProgress(plain_console(Clock())).end(stored=False)


def test_several_processes_show_what_each_does_and_share_the_time_that_is_left():
    clock = Clock()
    progress = LiveProgress(terminal(clock, io.StringIO()))
    progress.plan(100.0)
    first, second = progress.worker(1, 2), progress.worker(2, 2)
    first.begin("prune under ppb", 40.0)
    second.begin("dense references", 40.0)
    clock.now += 10
    first.advance(0.5, "round 3/5")
    second.advance(0.5, "epoch 9")
    lines = [" ".join(line.split()) for line in shown(progress).splitlines()]
    assert lines[0] == "1: prune under ppb 10.0 s"
    assert lines[2] == "2: dense references 10.0 s"
    # 40 of 100 in two times ten seconds: 60 are left, 30 for each, at 2 a second
    assert lines[-1].endswith("40 % about 15.0 s left")
    first.end(stored=False)
    assert shown(progress).splitlines()[0].startswith("prune under ppb")
    with pytest.raises(RuntimeError, match="begin"):
        first.end(stored=False)
