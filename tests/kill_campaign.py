"""Kill commands at random times, and compare what the next run leaves with what an undisturbed run left.

``python tests/kill_campaign.py 100 [seed]`` tries a hundred kills and prints each; the test suite tries a few.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from heard_signals import let_children_hear
from small_study import as_toml, table, without_times, write_data
from wemem.results.verify import verify

SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP")
#: Lines of progress, which stand on standard error beside the line that a stopped command ends with.
PROGRESS = re.compile(r" *\d+ %  |\d+ stages in |Plan: ")
#: Every command that computes, with its arguments; files that do not depend on time are compared.
COMMANDS = {
    "run": ["run", "study.toml"],
    "run on two processes": ["run", "study.toml", "--jobs", "2"],
    "compare": ["compare", "study.toml"],
    "diagnose": ["diagnose", "study.toml", "--models", "6"],
    "prune": ["prune", "--study", "study.toml", "--weights", "given.safetensors", "--members", "members.npz"],
    "audit": ["audit", "--study", "study.toml", "--weights", "given.safetensors", "--members", "members.npz"],
}
#: Commands that replace the results in their directory.
REPLACING = ("run", "compare", "audit")


@dataclass(frozen=True)
class Campaign:
    """A folder with a study, and the files that undisturbed commands left there.

    Args:
        folder: the folder.
        rng: draws commands, times and signals.
    """

    folder: Path
    rng: np.random.Generator

    def prepare(self) -> None:
        """Write the study and the members of its model."""
        study = table(
            write_data(self.folder), attacks=["confidence"], defenses=["undefended", "rsw"], controls=[],
            training={"epochs": 2, "batch_size": 64}, finetune={"epochs": 1, "batch_size": 64},
            pruning={"rounds": 2}, scores={"models": 6},
        )  # fmt: skip
        (self.folder / "study.toml").write_text(as_toml(study))
        np.savez(self.folder / "members.npz", members=np.arange(200))

    def trial(self, number: int) -> list[str]:
        """Kill one command once and run it again.

        Returns:
            Everything that is wrong.
        """
        name = str(self.rng.choice(list(COMMANDS)))
        whole, out, store = f"whole-{name}", f"out-{number}", f"store-{number}"
        self._finish_once("run" if "given.safetensors" in COMMANDS[name] else name)
        self._finish_once(name)
        chosen, seconds = str(self.rng.choice(SIGNALS)), float(self.rng.uniform(0, 9))
        worker = "two processes" in name and bool(self.rng.random() < 0.5)
        used = COMMANDS[name][0] in REPLACING and bool(self.rng.random() < 0.5)
        if used:
            shutil.copytree(self.folder / whole, self.folder / out)
        wrong = self._kill(COMMANDS[name], out, store, chosen, seconds, worker=worker)
        if used and self._old_results_beside_new_stages(whole, out, store):
            wrong.append("results of an earlier run are left after the first stage has ended")
        try:
            self._finish(COMMANDS[name], out, store)
        except subprocess.CalledProcessError as error:
            return [*wrong, f"the next run ended with {error.returncode}: {error.stderr[-500:]}"]
        if content(self.folder / out) != content(self.folder / whole):
            wrong.append("the next run left other files than an undisturbed one")
        sys.stdout.write(
            f"{name}, {chosen} {'to a worker ' if worker else ''}after {seconds:.1f} s: {wrong or 'well'}\n"
        )
        return [f"{name}, {chosen} after {seconds:.1f} s: {one}" for one in wrong]

    def _old_results_beside_new_stages(self, whole: str, out: str, store: str) -> bool:
        old, left = self.folder / whole / "results.json", self.folder / out / "results.json"
        stored = any(path.suffix == ".safetensors" for path in (self.folder / store).rglob("*"))
        return stored and left.exists() and left.read_bytes() == old.read_bytes()

    def _command(self, arguments: list[str], out: str, store: str) -> list[str]:
        return [sys.executable, "-m", "wemem", *arguments, "--out", out, "--store", store]

    def _finish_once(self, name: str) -> None:
        """Run a command undisturbed if it was not; the model of a run is the one to prune and audit."""
        whole = self.folder / f"whole-{name}"
        if not whole.exists():
            self._finish(COMMANDS[name], whole.name, f"whole-store-{name}")
            if name == "run":
                shutil.copy(whole / "models/dense-seed0.safetensors", self.folder / "given.safetensors")

    def _finish(self, arguments: list[str], out: str, store: str) -> None:
        command = self._command(arguments, out, store)
        subprocess.run(command, cwd=self.folder, check=True, capture_output=True, text=True)

    def _kill(
        self, arguments: list[str], out: str, store: str, name: str, seconds: float, *, worker: bool
    ) -> list[str]:  # fmt: skip
        process = subprocess.Popen(
            self._command(arguments, out, store), cwd=self.folder, start_new_session=True, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        time.sleep(seconds)
        targets = children(process.pid) if worker else []  # none while it starts: then it gets the signal itself
        target = int(self.rng.choice(targets)) if targets else process.pid
        with suppress(ProcessLookupError):  # it was faster
            os.kill(target, signal.SIGKILL if targets else getattr(signal, name))
        _, errors = process.communicate(timeout=120)
        wrong = []
        endings = [line for line in errors.splitlines() if not PROGRESS.match(line)]
        if "Traceback" in errors or len(endings) > 1:
            wrong.append(f"it printed {errors[-500:]!r}")
        if process.returncode not in (0, 2, 128 + getattr(signal, name), -getattr(signal, name)):
            wrong.append(f"its exit code was {process.returncode}")
        if not ended(process.pid):
            wrong.append("a process was left behind")
        folder = self.folder / out
        if (folder / "results.json").exists() and not verify(folder).passed:
            wrong.append("results.json stands beside files of another run")
        return wrong


def children(pid: int) -> list[int]:
    """Processes that a process has started."""
    return [int(number) for number in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def ended(group: int) -> bool:
    """Whether all processes of a group end within half a minute."""
    began = time.monotonic()
    while time.monotonic() - began < 30:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def content(folder: Path) -> dict[str, object]:
    """The files of an output directory that do not depend on how long anything took."""
    found: dict[str, object] = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.suffix in (".safetensors", ".parquet"):
            found[name] = path.read_bytes()
        elif path.name == "results.json":
            found[name] = without_times(json.loads(path.read_text()))
        elif path.name == "diagnosis.json":
            found[name] = {key: value for key, value in json.loads(path.read_text()).items() if key != "seconds"}
        elif path.is_file() and path.name.endswith(".part"):
            found[name] = "a part of a file"
    return found


def campaign(folder: Path, trials: int, seed: int) -> list[str]:
    """Try some kills.

    Returns:
        Everything that is wrong.
    """
    runs = Campaign(folder, np.random.default_rng(seed))
    runs.prepare()
    return [wrong for number in range(trials) for wrong in runs.trial(number)]


if __name__ == "__main__":
    let_children_hear()
    trials, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else int(time.time())
    sys.stdout.write(f"{trials} kills, seed {seed}\n")
    with tempfile.TemporaryDirectory() as temporary:
        failures = campaign(Path(temporary), trials, seed)
    sys.stdout.write(f"{len(failures)} wrong\n" + "".join(f"{one}\n" for one in failures))
    sys.exit(bool(failures))
