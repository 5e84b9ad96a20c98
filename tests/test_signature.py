"""The recipe for signatures in docs/gate.md works as it is printed, and finds what hashes cannot."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from bound_results import bound_folder, edit
from wemem.results.verify import verify
from wemem.store.fingerprint import PACKAGE

PAGE = (PACKAGE.parents[1] / "docs" / "gate.md").read_text("utf-8")
FOLDER, KEY = "runs/release", "~/.ssh/audit_key"

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")


def commands(folder: Path, key: Path) -> list[str]:
    """The signing and the verifying command of the page, for a folder and a key."""
    (block,) = re.findall(r"```sh\n(ssh-keygen.*?)```", PAGE, re.DOTALL)
    lines = block.replace("\\\n", " ").replace(FOLDER, str(folder)).replace(KEY, str(key)).splitlines()
    return [line for line in lines if line.startswith("ssh-keygen")]


def run(command: str, place: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, shell=True, cwd=place, capture_output=True, text=True, check=False)


@pytest.fixture
def signed(tmp_path):
    """A signed folder, and the command that verifies it."""
    folder = bound_folder(tmp_path / "results", {"rsw": 0.0}, references=4, adaptive=False)
    key = tmp_path / "audit_key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    kind, public, *_ = key.with_suffix(".pub").read_text().split()
    (tmp_path / "allowed_signers").write_text(f"auditor@example.org {kind} {public}\n")
    sign, check = commands(folder, key)
    assert run(sign, tmp_path).returncode == 0
    return folder, check


def test_signed_results_are_verified(signed, tmp_path):
    done = run(signed[1], tmp_path)
    assert done.returncode == 0, done.stderr
    assert 'Good "wemem" signature for auditor@example.org' in done.stdout


def test_an_edit_that_every_hash_allows_breaks_the_signature(signed, tmp_path):
    """More reference models, an adaptive audit and fewer planned runs: no record contradicts them."""
    folder, check = signed

    def edited(results):
        for run_ in results["runs"]:
            run_["certificate"]["adaptive"] = True
            for audit in run_["attacks"].values():
                audit.update(reference_models=64, adaptive=True)

    edit(folder, edited)
    assert verify(folder).passed
    assert run(check, tmp_path).returncode != 0


def test_a_signature_of_another_key_is_refused(signed, tmp_path):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other")], check=True)
    folder, check = signed
    sign, _ = commands(folder, tmp_path / "other")
    (folder / "results.json.sig").unlink()
    assert run(sign, tmp_path).returncode == 0
    assert run(check, tmp_path).returncode != 0
