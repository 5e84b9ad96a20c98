"""A study in one process, and on a Ray of five nodes of which two are killed: the same files, and the times.

    PYTHONPATH=tests python benchmarks/ray_nodes.py [STUDY.toml [KEY=VALUE...]]

The nodes are processes of this machine with one core each, and a killed one is not replaced.
"""

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from ray_cluster import AT_WORK, cluster_of, finished, processes, start, wait_until
from small_study import without_times
from wemem import api
from wemem.files.documents import read_json
from wemem.results.wording import duration

NODES, KILLED = 5, 2


def main() -> None:
    study, changed = Path(*sys.argv[1:2] or ["studies/smoke.toml"]).resolve(), sys.argv[2:]
    with TemporaryDirectory() as place, cluster_of(NODES) as cluster:
        folder, began, used = Path(place), time.perf_counter(), time.process_time()
        api.run(api.read_study(study, changed), folder / "one/out", threads=1)
        wall, own, tasks = time.perf_counter() - began, time.process_time() - used, entries(folder / "one")
        print(f"one process: {duration(wall)}, {duration(own)} of a core, {tasks} entries")
        began = time.perf_counter()
        driver = start(study, str(folder / "ray/out"), cluster.address, *(f"--set={one}" for one in changed))
        for killed in range(KILLED):
            enough = tasks * (killed + 1) // (KILLED + 2)
            wait_until(lambda least=enough: entries(folder / "ray") >= least and processes(AT_WORK), 900)
            cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
            print(f"killed a node after {duration(time.perf_counter() - began)}, {entries(folder / 'ray')} entries")
        again = [line for line in finished(driver).splitlines() if "begun again" in line]
        print(f"{NODES} nodes: {duration(time.perf_counter() - began)}, {len(again)} tasks begun again")
        print(f"results {'equal' if same(folder / 'one/out', folder / 'ray/out') else 'DIFFER'}")


def entries(folder: Path) -> int:
    """The number of entries of a store beside an output directory."""
    return len(list(folder.glob(".store/*/*/*/meta.json")))


def same(one: Path, other: Path) -> bool:
    """True if two output directories hold the same files, except for times."""
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    results = (without_times(read_json(out / "results.json", "results")) for out in (one, other))
    return next(results) == next(results) and all(
        (one / path).read_bytes() == (other / path).read_bytes() for path in files if path.suffix != ".json"
    )


if __name__ == "__main__":
    main()
