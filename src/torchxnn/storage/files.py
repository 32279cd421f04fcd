"""Files and folders that appear whole or not at all.

A full disk, an exception or a kill in the middle leaves what was there before, never a half-written
artefact: everything is written beside its target under a temporary name and then renamed.
"""

import errno
import getpass
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout


def replace_file(path: Path, content: bytes | Iterable[Any], prefix: str = ".torchxnn-") -> None:
    """Write `content` to `path` in one step: a reader sees the old file or the new one.

    It is bytes, or several buffers one after the other; missing parent folders are made. `prefix`
    begins the temporary file's name, which ends in .tmp.

    Raises:
        IsADirectoryError: `path` is a folder.
        OSError: The file cannot be written; an old file is as it was.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file inside it")
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=prefix, suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            parts: Iterable[Any] = (content,) if isinstance(content, bytes) else content
            for part in parts:
                stream.write(part)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(_mode(0o666))
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            said = f"{error.strerror}; free some space and run the same again"
            raise OSError(error.errno, said, str(path)) from error  # it named no file
        raise


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a lock on a folder in a `with`, so that processes that read and rewrite it take turns.

    Who holds the lock may replace the folder, so the lock file lies beside it: `.NAME.lock`. It
    stays, because those who wait for it and those who come later must find the same file. Where
    nobody may write beside the folder it lies in the folder, which then is replaced by nobody. The
    lock ends with the process, also after a kill.

    Raises:
        FileNotFoundError: There is not even a place for the folder.
        OSError: The lock file cannot be written.
    """
    folder = folder.resolve()
    if not folder.parent.is_dir():  # which the lock would make
        raise FileNotFoundError(f"there is no folder {folder.parent}")
    place = folder.parent if os.access(folder.parent, os.W_OK) else folder
    with FileLock(place / f".{folder.name}.lock"):
        yield


def check_replaceable(path: Path, marker: str) -> None:
    """Refuse to replace what we did not write; to be asked before long work, too.

    The arguments are those of `replace_folder`.

    Raises:
        FileExistsError: Something else is at `path`.
    """
    ours = path.is_dir() and ((path / marker).is_file() or not any(path.iterdir()))
    if path.exists() and not ours:
        raise FileExistsError(
            f"{path} exists and holds no {marker}, so it was not written by torchxnn; "
            "choose another name or remove it yourself"
        )


def check_writable(path: Path) -> None:
    """Refuse a place where nothing can be written; to be asked before long work.

    Raises:
        OSError: a file stands where a folder would have to be, or the system allows nothing there.
    """
    there = next(folder for folder in Path(path).absolute().parents if folder.exists())
    try:
        with tempfile.TemporaryDirectory(prefix=".torchxnn-", suffix=".tmp", dir=there):
            pass
    except OSError as error:
        raise OSError(
            f"{path} cannot be written, since nothing can be put into {there} "
            f"({error.strerror}); choose another place"
        ) from error


def _user() -> str:
    """Who runs this process; in a container not everybody has a name."""
    return str(os.getuid()) if hasattr(os, "getuid") else getpass.getuser()


@contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Keep a place for this process in a `with`, during long work that ends in writing it.

    The claim holds against other processes of the same user on this machine. It ends with the
    process, also after a kill; its lock lies among the temporary files, so nothing is left beside
    the place.

    Raises:
        FileExistsError: Another process has claimed it.
        OSError: see `check_writable`.
    """
    path = Path(path)
    check_writable(path)
    name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:24]
    folder = Path(tempfile.gettempdir()) / f"torchxnn-claims-{_user()}"
    folder.mkdir(exist_ok=True)
    lock = FileLock(folder / f"{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise FileExistsError(
            f"another process is at work on {path}; wait until it is done, or choose another name"
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def replace_folder(path: Path, marker: str) -> Iterator[Path]:
    """Fill a new folder in a `with`, which takes the place of `path` when the block ends well.

    Only nothing, an empty folder, or a folder that holds a file of the name `marker` (one that we
    wrote ourselves) is replaced; after an exception in the block everything is as before. Missing
    parent folders are made.

    Yields:
        A temporary folder beside `path`, to be filled.

    Raises:
        FileExistsError: Something else is at `path`.
    """
    path = Path(path)
    check_replaceable(path, marker)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".torchxnn-", suffix=".tmp", dir=path.parent))
    try:
        yield temporary
        temporary.chmod(_mode(0o777))
        _swap(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def without_formula(text: str) -> str:
    """A text for a CSV file: one that a spreadsheet would run gets an apostrophe before it."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _swap(new: Path, path: Path) -> None:
    """Rename `new` to `path`; an old folder steps aside and comes back if that fails.

    Raises:
        OSError: It failed. If somebody made `path` anew meanwhile, the old folder cannot come back,
            and the message says where it is.
    """
    if not path.exists():
        new.rename(path)
        return
    aside = Path(tempfile.mkdtemp(prefix=".torchxnn-", suffix=".old", dir=path.parent))
    old = path.rename(aside / "old")
    try:
        new.rename(path)
    except BaseException as error:
        try:
            old.rename(path)
        except OSError:
            raise OSError(
                f"{path} could not be replaced: {error}; somebody made it anew meanwhile. What it "
                f"held before is in {old}; move it back"
            ) from error
        with suppress(OSError):
            aside.rmdir()
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _mode(full: int) -> int:
    """The mode that a plain open() or mkdir() would give, which mkstemp does not."""
    mask = os.umask(0)
    os.umask(mask)
    return full & ~mask
