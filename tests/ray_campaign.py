"""Random kills of a study on a Ray of five nodes: ``make ray-campaign N=30 SEED=0``.

Each kill takes a worker, a node or the driver at a random moment; a lost node is replaced, and a killed
driver is started again. In the end the results are those of an undisturbed run, no process is left and no
entry of the store is damaged.
"""

import json
import random
import signal
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from heard_signals import let_children_hear
from ray_cluster import AT_WORK, NODE, cluster_of, finished, kill_worker, processes, start, wait_until
from small_study import without_times
from test_ray import read, write_study
from wemem import api
from wemem.store.upkeep import damaged_entries, existing_store


def campaign(kills: int, seed: int) -> dict[str, int]:
    """Run the study until all kills are spent and it has ended; the number of kills by kind."""
    rng, done = random.Random(seed), {"worker": 0, "node": 0, "driver": 0, "runs": 0}
    with TemporaryDirectory() as place, cluster_of(5) as cluster:
        folder = Path(place)
        study = write_study(folder)
        expected, began = without_times(api.run(study, folder / "one/out", threads=1)), time.monotonic()
        while sum(done[kind] for kind in ("worker", "node", "driver")) < kills:
            out = f"ray{done['runs']}/out"
            done["runs"] += 1
            driver = start(study, out, cluster.address)
            while driver.poll() is None and sum(done.values()) - done["runs"] < kills:
                time.sleep(rng.uniform(0.5, 4.0))
                match rng.choice(("worker", "worker", "node", "driver")):
                    case "worker":
                        done["worker"] += kill_worker()
                    case "node" if processes(AT_WORK):
                        cluster.remove_node(rng.choice(cluster.list_all_nodes()[1:]), allow_graceful=False)
                        cluster.add_node(**NODE)
                        done["node"] += 1
                    case "driver" if processes(AT_WORK):
                        driver.send_signal(signal.SIGKILL)
                        driver.communicate()
                        done["driver"] += 1
                        driver = start(study, out, cluster.address)
            finished(driver)
            wait_until(lambda: not processes(AT_WORK, folder))
            assert read(folder / out) == expected, out
            store = existing_store((folder / out).parent / ".store")
            assert all(one.complete for one in store.listed()), "a half entry"
            assert not damaged_entries(store), "a damaged entry"
            sys.stderr.write(f"{time.monotonic() - began:.0f} s, equal results: {done}\n")
    wait_until(lambda: not processes(b"ray::") and not processes(b"ray::", folder))
    return done


if __name__ == "__main__":
    let_children_hear()
    done = campaign(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    sys.stdout.write(json.dumps(done) + "\n")
