"""What was fetched, in a small text file beside the data: the first download is trusted, every later one compared.

Publishers of these sets state no checksum. So the first is recorded, and said to be; the lock file can be handed to
colleagues or kept under version control, and then their first download is compared too.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trocar.data.files import atomic_write_text
from trocar.documents import refuse_what_is_no_file
from trocar.errors import UserError


class Lock(BaseModel):
    """The archive as it came, and the folder as it was laid out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="of the set")
    url: str = Field(description="where the archive came from")
    size: int = Field(description="of the archive, in bytes")
    sha256: str = Field(description="of the archive", pattern="^[0-9a-f]{64}$")
    files: int = Field(description="in the folder")
    folder_sha256: str = Field(
        description="of a list of the files: SHA-256, two blanks, path, line feed; sorted by path",
        pattern="^[0-9a-f]{64}$",
    )
    fetched: str = Field(description="day of the first download, the one that was trusted")


def lock_path(out: Path) -> Path:
    """Beside the folder, so that it outlives it: `kvasir` has `kvasir.lock.json`."""
    return out.with_name(f"{out.name}.lock.json")


def read_lock(out: Path) -> Lock | None:
    """The lock of a folder, if there is one. A damaged one is refused: it may not be passed over in silence."""
    path = lock_path(out)
    if not path.exists():
        return None
    try:
        refuse_what_is_no_file(path)
        return Lock.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        first = str(error).splitlines()[0]
        raise UserError(
            f"the lock file cannot be read: {first}",
            where=str(path),
            mend="put it back from version control, or remove it to trust the next download as the first",
        ) from None


def write_lock(out: Path, lock: Lock) -> None:
    """Write it, whole or not at all."""
    atomic_write_text(lock_path(out), lock.model_dump_json(indent=1) + "\n")


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of_folder(folder: Path) -> tuple[int, str]:
    """Number of files below a folder, and one SHA-256 over their paths and contents."""
    paths = sorted((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*") if path.is_file())
    lines = "".join(f"{digest(path)}  {name}\n" for name, path in paths)
    return len(paths), hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()
