"""A study that is killed goes on where it was, and ends as one that was left alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from small_study import table, without_times, write_data
from wemem import api
from wemem.config.parse import parse_study
from wemem.config.study import StudyConfig
from wemem.pipeline.progress import Silent
from wemem.store.store import Store

pytestmark = pytest.mark.slow


class KilledError(BaseException):
    """Nobody catches it."""


class Counted(Silent):
    """How many stages were computed, and what was warned of."""

    def __init__(self):
        self.computed = 0
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    def end(self, *, stored: bool) -> None:
        self.computed += not stored


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("resume")


@pytest.fixture(scope="module")
def config(folder: Path) -> StudyConfig:
    attacks = ["confidence", "pruning_trajectory", "lira"]
    return parse_study(table(write_data(folder), attacks=attacks, defenses=["undefended", "swmr"]))


@pytest.fixture(scope="module")
def undisturbed(config: StudyConfig, folder: Path) -> dict[str, Any]:
    return api.run(config, folder / "undisturbed/out")


def killed_after(call: Callable[..., Any], times: int) -> Callable[..., Any]:
    """A function that is killed right after it was called so many times."""
    left = [times]

    def counting(*args: Any, **kwargs: Any) -> Any:
        found = call(*args, **kwargs)
        left[0] -= 1
        if not left[0]:
            raise KilledError
        return found

    return counting


def same_files(one: Path, other: Path) -> None:
    first, second = ({p.relative_to(root): p for p in root.rglob("*") if p.is_file()} for root in (one, other))
    assert first.keys() == second.keys()
    for name, path in first.items():
        if name.name == "results.json":
            assert without_times(json.loads(path.read_text())) == without_times(json.loads(second[name].read_text()))
        else:
            assert path.read_bytes() == second[name].read_bytes(), name


def test_killed_after_every_single_stage_it_ends_as_one_left_alone(config, undisturbed, folder, tmp_path, monkeypatch):
    out, deaths = tmp_path / "out", 0
    while not (out / "results.json").exists():
        with monkeypatch.context() as patch:
            patch.setattr(Store, "put", killed_after(Store.put, 1))
            try:
                found = api.run(config, out)
            except KilledError:
                deaths += 1
                assert not out.exists()
    assert deaths > 20
    assert without_times(found) == without_times(undisturbed)
    same_files(out, folder / "undisturbed/out")


def test_killed_between_a_round_and_the_removal_of_the_one_before(undisturbed, folder, tmp_path, monkeypatch):
    """Without the trajectory only the last round stays; the one before it is removed once its successor is there."""
    plain = parse_study(table(folder / "data.npz", attacks=["confidence"], defenses=["rsw"]))
    expected = api.run(plain, tmp_path / "whole/out")
    for times in (1, 2):
        out = tmp_path / f"killed{times}/out"
        with monkeypatch.context() as patch:
            patch.setattr(Store, "delete", killed_after(Store.delete, times))
            with pytest.raises(KilledError):
                api.run(plain, out)
        assert without_times(api.run(plain, out)) == without_times(expected)
        same_files(out, tmp_path / "whole/out")


@pytest.mark.parametrize("times", [1, 4, 6, 7])
def test_killed_while_files_are_written_it_leaves_whole_files_and_ends_well(
    times, config, undisturbed, folder, tmp_path, monkeypatch
):
    store, out = folder / "undisturbed/.store", tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed_after(Path.replace, times))
        with pytest.raises(KilledError):
            api.run(config, out, store)
    heard = Counted()
    assert api.run(config, out, store, heard) == undisturbed
    assert heard.computed == 0
    same_files(out, folder / "undisturbed/out")


def test_what_was_cut_short_in_the_out_folder_is_written_anew(config, undisturbed, folder, tmp_path):
    """A kill in the middle of a write leaves a hidden part of a file, and the next run its place to the whole one."""
    out = tmp_path / "out"
    out.mkdir()
    (out / ".results.json.part").write_text('{"schema": "wemem.res')
    (out / ".per_sample.parquet.part").write_bytes(b"PAR1")
    api.run(config, out, folder / "undisturbed/.store")
    same_files(out, folder / "undisturbed/out")


def test_damaged_stage_is_computed_again(config, undisturbed, folder, tmp_path):
    copied = tmp_path / ".store"
    api.run(config, tmp_path / "out", copied)
    damaged = sorted((copied / "attack").rglob("data.safetensors"))
    content = bytearray(damaged[0].read_bytes())
    content[-1] ^= 1
    damaged[0].write_bytes(content)
    heard = Counted()
    found = api.run(config, tmp_path / "again", copied, heard)
    assert len(heard.warnings) == 1
    assert "damaged" in heard.warnings[0]
    assert heard.computed == 1
    assert without_times(found) == without_times(undisturbed)


def test_same_study_in_two_stores_stores_the_same_arrays(config, undisturbed, folder, tmp_path):
    api.run(config, tmp_path / "out", tmp_path / ".store")
    first, second = (
        {p.parent.name: p.read_bytes() for p in root.rglob("data.safetensors")}
        for root in (folder / "undisturbed/.store", tmp_path / ".store")
    )
    assert first.keys() == second.keys()
    assert all(first[key] == second[key] for key in first)
