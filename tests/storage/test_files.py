from pathlib import Path

import pytest

from torchxnn.storage.files import locked, replace_file, replace_folder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_with_missing_parents(tmp_path):
    replace_file(tmp_path / "a" / "b.html", b"new")
    assert (tmp_path / "a" / "b.html").read_bytes() == b"new"
    assert names(tmp_path / "a") == ["b.html"]


def test_a_file_gets_the_mode_that_open_would_give(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    replace_file(tmp_path / "ours", b"")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("old", [None, b"old"])
def test_a_full_disk_leaves_the_old_file_or_nothing(tmp_path, monkeypatch, old):
    path = tmp_path / "page.html"
    if old is not None:
        path.write_bytes(old)

    def fail(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match=r"No space left.*; free some space and run.*page\.html"):
        replace_file(path, b"new")
    assert names(tmp_path) == ([] if old is None else ["page.html"])
    assert old is None or path.read_bytes() == old


def test_a_file_does_not_replace_a_folder(tmp_path):
    with pytest.raises(IsADirectoryError, match="is a folder"):
        replace_file(tmp_path, b"new")


def fill(path, text="new"):
    with replace_folder(path, "marker") as folder:
        (folder / "marker").write_text(text)


def test_a_folder_appears_replaces_its_own_kind_and_an_empty_folder(tmp_path):
    fill(tmp_path / "a" / "out", "first")
    (tmp_path / "a" / "out" / "left over").write_text("x")
    fill(tmp_path / "a" / "out", "second")
    assert names(tmp_path / "a" / "out") == ["marker"]
    assert (tmp_path / "a" / "out" / "marker").read_text() == "second"
    (tmp_path / "a" / "empty").mkdir()
    fill(tmp_path / "a" / "empty")
    assert names(tmp_path / "a") == ["empty", "out"]


def test_something_else_is_never_replaced(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("cat")
    (tmp_path / "file").write_text("text")
    for name in ("photos", "file"):
        with pytest.raises(FileExistsError, match="not written by torchxnn"):
            fill(tmp_path / name)
    assert names(tmp_path) == ["file", "photos"]
    assert names(tmp_path / "photos") == ["cat.jpg"]


@pytest.mark.parametrize("existing", [False, True])
def test_an_exception_while_filling_leaves_everything_as_before(tmp_path, existing):
    if existing:
        fill(tmp_path / "out", "old")

    def interrupted():
        with replace_folder(tmp_path / "out", "marker") as folder:
            (folder / "marker").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert names(tmp_path) == (["out"] if existing else [])
    assert not existing or (tmp_path / "out" / "marker").read_text() == "old"


def test_a_failing_rename_brings_the_old_folder_back(tmp_path, monkeypatch):
    fill(tmp_path / "out", "old")
    rename = type(tmp_path).rename

    def fail(self, target):
        if self.name.endswith(".tmp"):
            raise OSError("rename failed")
        return rename(self, target)

    monkeypatch.setattr(type(tmp_path), "rename", fail)
    with pytest.raises(OSError, match="rename failed"):
        fill(tmp_path / "out", "new")
    assert names(tmp_path) == ["out"]
    assert (tmp_path / "out" / "marker").read_text() == "old"


def test_what_a_folder_held_is_not_lost_when_somebody_makes_it_anew(tmp_path, monkeypatch):
    """Neither the new folder nor the old one fits there any more."""
    fill(tmp_path / "out", "old")
    rename = type(tmp_path).rename

    def intrude(self, target):
        renamed = rename(self, target)
        if self == tmp_path / "out":
            self.mkdir()
            (self / "theirs").write_text("x")
        return renamed

    monkeypatch.setattr(type(tmp_path), "rename", intrude)
    with pytest.raises(OSError, match="held before is in") as caught:
        fill(tmp_path / "out", "new")
    old = Path(str(caught.value).partition("held before is in ")[2].removesuffix("; move it back"))
    assert (old / "marker").read_text() == "old"
    assert names(tmp_path / "out") == ["theirs"]


def test_a_lock_lies_beside_its_folder_or_in_it(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    folder.mkdir()
    with locked(folder):
        folder.rmdir()  # replaced by who holds the lock
    assert names(tmp_path) == [".run.lock"]
    folder.mkdir()
    monkeypatch.setattr("os.access", lambda *_: False)
    with locked(folder):
        assert names(folder) == [".run.lock"]
    with pytest.raises(FileNotFoundError, match="gone"), locked(tmp_path / "gone" / "run"):
        pass
