"""Every command and program that README, the guide and the studies' page show runs as it is printed, on small data."""

import functools
import json
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import wemem
from docs_folder import ROOT, SMALL, given_names, small_study, write_inputs, write_results
from wemem import cli

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

PAGES = [path for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")), ROOT / "studies" / "README.md")
         if "_build" not in path.parts and "gallery" not in path.parts]  # fmt: skip
#: Parts of commands that are shown and not run here, with the reason.
NOT_RUN = {
    "s3://": "needs a bucket; test_bucket_runs.py runs studies on an S3 server of its own",
    "gs://": "needs a bucket",
    "--ray": "needs a cluster; test_ray.py",
    "--jobs 32": "32 processes; test_workers.py",
    "--install-completion": "changes the start-up file of the shell",
    "--show-completion": "test_start_commands.py runs it in bash",
    "--mlflow": "test_tracking.py",
}
#: Commands that read a study or its defaults, and get small settings.
STUDIED = ("run", "compare", "prune", "audit", "diagnose", "plan")
#: A folder of the machine, and the one in its place.
ELSEWHERE = ("/data/store", "data-store")
#: Settings in place of data that are not here, by study.
IMAGES = ["data.source=images.npz", "data.records=120", "model={kind='convnet'}", "defenses=['undefended']"]
DATA = {
    "location.toml": ["data.source=patients.npz"],
    "cifar10-small": IMAGES,
    "studies/fashion": [*IMAGES[2:], "leave_one_out=false"],
}


def commands_of(text: str) -> list[str]:
    """Commands of WeMem in the blocks of a page, in order."""
    blocks = re.findall(r"^```(?:sh|bash)?\n(.*?)^```|((?:^ {4}\S.*\n)+)", text, re.MULTILINE | re.DOTALL)
    lines = re.sub(r"\\\n\s*", "", "\n".join(fenced + indented for fenced, indented in blocks)).splitlines()
    parts = [part.strip() for line in lines for part in re.split(r" && |  +#.*", line)]
    return [part for part in parts if re.match(r"(?:[A-Z_]+=\S+ )*wemem ", part)]


SHOWN = {page: commands_of(page.read_text("utf-8")) for page in PAGES}
PROGRAMS = {
    page: re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL) for page in PAGES
}


def pages_with(shown: dict[Path, list[str]]) -> Any:
    pages = [page for page, blocks in shown.items() if blocks]
    return pytest.mark.parametrize("page", pages, ids=lambda page: str(page.relative_to(ROOT)))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every file that a page expects to be there."""
    folder = tmp_path_factory.mktemp("docs")
    write_inputs(folder)
    write_results(folder)
    return folder


@pytest.fixture
def place(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of that folder as the working directory, with a store that all pages share."""
    folder = tmp_path / "work"
    shutil.copytree(prepared, folder, ignore=shutil.ignore_patterns("store"))
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("WEMEM_STORE", str(prepared / "store"))
    yield folder
    for name in ("mymodule", "penalty"):
        sys.modules.pop(name, None)


def small(words: list[str]) -> list[str]:
    """The words of a command, with settings that make it small and that it does not set itself."""
    if words[0] not in STUDIED or "--signals" in words:
        return words
    keys = {word.split("=")[0] for word in words}
    settings = [f"{key}={value}" for key, value in SMALL.items() if key not in keys]
    settings += ["defenses=['undefended', 'rsw']"] if words[0] in ("run", "compare", "plan") else []
    settings += [one for name, given in DATA.items() if any(name in word for word in words) for one in given]
    several = ["--models", "8"] if words[0] == "diagnose" else []
    return [*words, *several, *(word for setting in settings for word in ("--set", setting))]


@pages_with(SHOWN)
def test_every_command_of_a_page_runs_in_its_order(page, place, monkeypatch, capsys):
    for line in SHOWN[page]:
        if any(part in line for part in NOT_RUN):
            continue
        words = small(shlex.split(line.split("wemem ", 1)[1].replace(*ELSEWHERE)))
        if words[0] == "init":
            Path("study.toml").unlink()  # which the command refuses to overwrite
        monkeypatch.setattr(sys, "argv", ["wemem", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        expected = 1 if words[0] == "gate" else 0  # so few records pass no limit
        assert ended.value.code == expected, f"{line}\n{printed.out}\n{printed.err}"


@pages_with(PROGRAMS)
def test_every_program_of_a_page_runs_in_its_order(page, place, monkeypatch):
    quickly = functools.partial(wemem.audit, progress=False)
    monkeypatch.setattr(wemem, "audit", lambda *given, **named: quickly(*given, **{"study": small_study()} | named))
    names: dict[str, Any] = {"results": json.loads(Path("DIR/results.json").read_text("utf-8"))}
    for program in PROGRAMS[page]:
        file = re.match(r"# (\w+\.py)\n", program)
        if file is not None:
            Path(file[1]).write_text(program)
        names |= given_names()
        exec(compile(program, str(page), "exec"), names)  # noqa: S102 (the pages are ours)
        for name in [name for name in names if name.startswith("test_")]:
            names.pop(name)()


def test_what_is_not_run_is_still_shown():
    text = "\n".join(line for lines in SHOWN.values() for line in lines)
    assert [part for part in NOT_RUN if part not in text] == []


def test_commands_are_found_behind_variables_and_in_joined_lines():
    text = "```\nWEMEM_STORE=s wemem run a \\\n    --out b && wemem gate b   # then\nmake run\n```\n    wemem list\n"
    assert commands_of(text) == ["WEMEM_STORE=s wemem run a --out b", "wemem gate b", "wemem list"]


def test_every_target_of_make_that_is_shown_exists():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    pages = [*PAGES, ROOT / "CONTRIBUTING.md"]
    shown = {
        word
        for page in pages
        for block in re.findall(r"^```\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
        for line in re.findall(r"^make ([\w -]+)", block, re.MULTILINE)
        for word in line.split()
    }
    assert {"run", "test"} <= shown <= targets
