"""Requests, bytes and waiting time of a study whose store is a bucket, against moto's server.

Every request is delayed by the latency of a storage in the same region.
"""

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from s3_server import Gate, environment, new_bucket, s3_server
from wemem import api
from wemem.store.store import Store

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--study", type=Path, default=Path(__file__).parents[1] / "studies" / "smoke.toml")
parser.add_argument("--latency", type=float, default=0.03, help="Seconds that every request is delayed.")


def measure(study: Path, store: str, folder: Path, gate: Gate, title: str) -> None:
    gate.seen.clear()
    began = time.perf_counter()
    api.run(study, folder / title.replace(" ", "-"), store)
    seconds = time.perf_counter() - began
    counts = Counter(line.split()[0] for line in gate.seen)
    print(f"{title:28} {seconds:7.1f} s  {len(gate.seen):5} requests {dict(sorted(counts.items()))}")


def main(study: Path, latency: float) -> None:
    with s3_server() as address, Gate(address) as gate, tempfile.TemporaryDirectory() as temporary:
        folder, url = Path(temporary), "s3://studies/costs"
        os.environ.update(environment(gate.address, folder / "cache"))
        new_bucket(address, "studies")

        def delay(number: int) -> None:
            time.sleep(latency)

        gate.before = delay
        measure(study, str(folder / "store"), folder, gate, "folder")
        measure(study, url, folder, gate, "bucket")
        measure(study, url, folder, gate, "again from the cache")
        os.environ["WEMEM_CACHE"] = str(folder / "other")
        measure(study, url, folder, gate, "again on another machine")
        store = Store(url)
        print(f"{len(store.listed())} entries, {store.size():,} bytes")


if __name__ == "__main__":
    given = parser.parse_args()
    main(given.study, given.latency)
