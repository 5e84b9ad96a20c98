"""The arms of a study on one GPU, in several processes beside each other, each arm saved as it ends.

    PYTHONPATH=src python -m benchmarks.gpu.arms studies/compare-location.toml --seeds 6,7,8 --references 64 --out OUT

An arm is one defense under one seed. The processes share a store. One of them trains the unpruned
models of its seed first, for which the others wait, and one scores records for the defenses that need
it; then every process runs its arms, in order of worth. ``arms.json`` lists what ended;
``arms-SEED.zip`` has the results of every arm that ended, and their scores for each record as far as
there is room.
"""

import argparse
import json
import subprocess
import sys
import time
import tomllib
import traceback
import zipfile
from pathlib import Path
from typing import Any

#: Arms under one quick attack, run to train what later arms share, and their defenses.
FIRST = {"models": "undefended", "scores": "rmr"}
#: The arms of each process, by the names of the defenses, in order of worth.
PROCESSES = (
    ("models", "undefended", "hamp"),
    ("scores", "rmr", "rsw"),
    ("label_smoothing", "swmr"),
    ("oosd",),
    ("advreg", "early_stopping"),
    ("relaxloss", "radd", "ppb", "dpsgd"),
)
#: What an arm waits for.
WAITS = {arm: "models" for own in PROCESSES for arm in own if arm != "models"} | {"rsw": "scores", "swmr": "scores"}
#: Seconds between two collections of the results.
OFTEN = 20
#: The largest size of a file of results, in bytes.
ROOM = 15 * 2**20


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--seeds", default="6,7,8")
    parser.add_argument("--references", type=int, default=64, help="the number of reference models of every arm")
    parser.add_argument("--set", action="append", default=[], help="key=value, for every arm")
    parser.add_argument("--seconds", type=float, default=150.0, help="the time from the start, or from --go")
    parser.add_argument("--go", type=Path, help="a file; nothing is computed before it exists")
    parser.add_argument("--out", type=Path, default=Path("gpu-results"))
    parser.add_argument("--scratch", type=Path, default=Path("gpu-scratch"), help="the folder for store and results")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--process", type=int, help=argparse.SUPPRESS)  # one of PROCESSES, for the one seed given
    return parser.parse_args()


def main() -> None:
    given = parse()
    if given.process is not None:
        run_arms(given)
        return
    given.out.mkdir(parents=True, exist_ok=True)
    given.scratch.mkdir(parents=True, exist_ok=True)
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.gpu.arms", *sys.argv[1:], "--seeds", seed, "--process", str(number)]
        )
        for seed in given.seeds.split(",") for number in range(len(PROCESSES))
    ]  # fmt: skip
    wait_for(given.go)
    end = time.time() + given.seconds
    while any(process.poll() is None for process in processes) and (left := end - time.time()) > 0:
        time.sleep(min(left, OFTEN))
        collect(given)
    for process in processes:
        process.kill()
        process.wait()
    collect(given)


def wait_for(path: Path | None) -> None:
    while path is not None and not path.exists():
        time.sleep(0.1)


def run_arms(given: argparse.Namespace) -> None:
    """Run the arms of one process, and note the seconds or the error of each."""
    import torch

    from wemem import api
    from wemem.training import choose_device

    torch.set_num_threads(1)
    wait_for(given.go)
    seed, device = int(given.seeds), choose_device(given.device)
    table = tomllib.loads(given.study.read_text())
    for arm in PROCESSES[given.process]:
        folder = given.scratch / f"{seed}-{arm}"
        if arm in WAITS:
            wait_for(given.scratch / f"{seed}-{WAITS[arm]}" / "done.json")
        began, stages = time.time(), Stages()
        own = next(d for d in table["defenses"] if d["kind"] == FIRST.get(arm, arm)) | {"references": given.references}
        overrides = [f"seeds=[{seed}]", f"split.references={given.references}", f"defenses=[{_toml(own)}]"]
        overrides += ['attacks=["lira"]', "leave_one_out=false"] * (arm in FIRST)
        row: dict[str, Any] = {"seed": seed, "arm": arm}
        try:
            config = api.read_study(given.study, [*overrides, "controls=[]", *given.set], device=device.type)
            api.run(config, folder, given.scratch / "store", progress=stages)
        except Exception as error:  # one failure must not lose the other arms
            traceback.print_exc()
            row["error"] = f"{type(error).__name__}: {error}"
            folder.mkdir(exist_ok=True)
        row |= {"seconds": round(time.time() - began, 2), "stages": stages.seconds}
        (folder / "done.part").write_text(json.dumps(row))
        (folder / "done.part").rename(folder / "done.json")  # whole from the first moment
        print({name: row[name] for name in row if name != "stages"}, flush=True)


class Stages:
    """Progress that measures the seconds of every stage that is computed."""

    def __init__(self) -> None:
        self.seconds: list[tuple[str, float]] = []
        self._title, self._began = "", 0.0

    def plan(self, work: float) -> None: ...

    def begin(self, stage: str, work: float) -> None:
        self._title, self._began = stage, time.time()

    def advance(self, fraction: float, detail: str) -> None: ...

    def end(self, *, stored: bool) -> None:
        if not stored:
            self.seconds.append((self._title, round(time.time() - self._began, 2)))

    def tell(self, message: str) -> None: ...

    def warn(self, message: str) -> None:
        print(message, flush=True)

    def worker(self, number: int, workers: int) -> "Stages":
        return self


def _toml(table: dict[str, object]) -> str:
    return "{" + ", ".join(f"{key} = {json.dumps(value)}" for key, value in table.items()) + "}"


def collect(given: argparse.Namespace) -> None:
    """Write what has ended: a list, and for each seed an archive of the results."""
    ended = {path.parent: json.loads(path.read_text()) for path in sorted(given.scratch.glob("*-*/done.json"))}
    (given.out / "arms.json").write_text(json.dumps(list(ended.values()), indent=1))
    for seed in given.seeds.split(","):
        with zipfile.ZipFile(given.out / f"arms-{seed}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for name in ("results.json", "per_sample.parquet"):
                for folder, row in ended.items():
                    size = sum(entry.compress_size for entry in archive.infolist())
                    path = folder / name
                    if str(row["seed"]) == seed and path.exists() and size + path.stat().st_size < ROOM:
                        archive.write(path, f"{folder.name}/{name}")
    print(f"{len(ended)} arms ended, {sum('error' in row for row in ended.values())} with an error", flush=True)


if __name__ == "__main__":
    main()
