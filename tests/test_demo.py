from pathlib import Path

import pytest

from trocar.demo import clear_earlier
from trocar.errors import UserError


def test_only_an_earlier_demo_is_replaced(drawn: Path, tmp_path: Path) -> None:
    import shutil

    out = tmp_path / "demo"
    clear_earlier(out)  # nothing there: nothing to do
    shutil.copytree(drawn, out / "data")
    (out / "report").mkdir()
    clear_earlier(out)
    assert list(out.iterdir()) == []
    shutil.copytree(drawn, out / "data")
    (out / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="something else"):
        clear_earlier(out)
    assert (out / "thesis.txt").exists()
    assert (out / "data" / "dataset.json").exists()


def test_a_folder_that_only_looks_alike_is_kept(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "precious.png").write_bytes(b"x")
    with pytest.raises(UserError):
        clear_earlier(tmp_path)
    assert (tmp_path / "data" / "precious.png").exists()
