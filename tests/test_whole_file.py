"""Check that a file is written whole or not at all."""

from pathlib import Path

import pytest

from pais_bench.whole_file import open_whole, partial_path


def test_a_write_that_fails_leaves_the_earlier_file_alone(tmp_path: Path) -> None:
    link, file = tmp_path / "link", tmp_path / "new" / "file"
    link.symlink_to(file)
    with open_whole(link, "wb") as out:
        out.write(b"first")
    with pytest.raises(ZeroDivisionError), partial_path(link) as partial:
        partial.write_text("torn")
        raise ZeroDivisionError
    assert link.is_symlink() and file.read_bytes() == b"first"
    assert set(tmp_path.rglob("*")) == {file, file.parent, link}
