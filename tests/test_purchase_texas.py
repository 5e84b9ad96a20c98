"""Purchase-100 and Texas-100, from tiny tables of the published format."""

import io
import tarfile

import numpy as np
import pytest

import wemem.data.loaders.purchase_texas
from wemem.data.sources import load_dataset
from wemem.errors import InputError

PURCHASE, TEXAS = 600, 6169


def table(features, n=120):
    rng = np.random.default_rng(n)
    return rng.integers(0, 2, (n, features), np.uint8), np.arange(n) % 100


def text_of(x):
    return "".join(",".join(map(str, row)) + "\n" for row in x.tolist())


def purchase_text(x, y):
    return "".join(
        f"{label + 1},{','.join(map(str, row))}\n" for label, row in zip(y.tolist(), x.tolist(), strict=True)
    )


def tgz(path, members):
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, text in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    return path


def test_purchase100_is_read_from_archive_file_and_folder(tmp_path, monkeypatch):
    x, y = table(PURCHASE)
    text = purchase_text(x, y)
    archive = tgz(tmp_path / "dataset_purchase.tgz", {"dataset_purchase": text})
    data = load_dataset("purchase100", path=archive)
    assert (data.name, data.classes, data.labels.tolist()) == ("purchase100", 100, y.tolist())
    np.testing.assert_array_equal(data.features, x)
    monkeypatch.setenv("WEMEM_DATA", str(tmp_path))
    assert load_dataset("purchase100").fingerprint == data.fingerprint
    archive.unlink()
    (tmp_path / "dataset_purchase").write_text(text)
    for path in (tmp_path, tmp_path / "dataset_purchase"):
        assert load_dataset("purchase100", path=path).fingerprint == data.fingerprint
    assert len(load_dataset("purchase100", records=100)) == 100


def test_texas100_joins_features_and_labels(tmp_path):
    x, y = table(TEXAS, 101)
    files = {"feats": text_of(x), "labels": "".join(f"{label + 1}\n" for label in y)}
    path = tgz(
        tmp_path / "dataset_texas.tgz",
        {"texas/100/labels": files["labels"], "texas/100/feats": files["feats"], "texas/50/feats": "no"},
    )
    data = load_dataset("texas100", path=path)
    np.testing.assert_array_equal(data.features, x)
    assert data.labels.tolist() == y.tolist()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert load_dataset("texas100", path=tmp_path).fingerprint == data.fingerprint
    (tmp_path / "labels").write_text("1\n")
    with pytest.raises(InputError, match="equally many records, got 101 and 1"):
        load_dataset("texas100", path=tmp_path)


def test_without_a_copy_it_says_why_it_is_not_downloaded(monkeypatch):
    monkeypatch.delenv("WEMEM_DATA", raising=False)
    with pytest.raises(InputError, match=r"no checksum of it is published, so get dataset_texas\.tgz from https://"):
        load_dataset("texas100")


@pytest.mark.parametrize(
    "line",
    ["", "0" + ",0" * PURCHASE, "101" + ",0" * PURCHASE, "1" + ",0" * (PURCHASE - 1), "1" + ",0" * (PURCHASE + 1),
     "1" + ",2" * PURCHASE, "1" + ";0" * PURCHASE, "x" + ",0" * PURCHASE, "1," + "0" * 10_000],
)  # fmt: skip
def test_another_line_is_refused_by_its_number(tmp_path, line):
    good = "1" + ",0" * PURCHASE
    (tmp_path / "dataset_purchase").write_text(f"{good}\n{line}\n{good}\n")
    with pytest.raises(InputError, match=r"dataset_purchase, line 2: expected"):
        load_dataset("purchase100", path=tmp_path)


def test_table_that_does_not_fit_or_never_ends_is_refused(tmp_path, monkeypatch):
    path = tgz(tmp_path / "dataset_purchase.tgz", {"dataset_purchase": purchase_text(*table(PURCHASE))})
    with pytest.raises(InputError, match="raise memory_gib"):
        load_dataset("purchase100", path=path, memory_gib=1e-5)
    monkeypatch.setattr(wemem.data.loaders.purchase_texas, "SIZE_LIMIT", 1000)
    with pytest.raises(InputError, match="at most 1000 bytes"):
        load_dataset("purchase100", path=path)


def test_archive_without_the_table_is_refused(tmp_path):
    with pytest.raises(InputError, match="got 0 and 0"):
        load_dataset("purchase100", path=tgz(tmp_path / "a.tgz", {"other": "x"}))
