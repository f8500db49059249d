"""Read a log that another process writes, of each time only the lines that are new."""

from __future__ import annotations

from pathlib import Path


class NewLines:
    """Hold up to where a log was read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = self._inode = 0

    def read(self) -> tuple[bool, list[bytes]]:
        """Return whether the log is read from its start, and its new lines without their ends.

        A line that is being written does not count. A log is read again where a resumed training wrote it anew; an
        absent one is empty.
        """
        try:
            state = self.path.stat()
        except OSError:
            state = None
        anew = state is None or state.st_ino != self._inode or state.st_size < self._offset
        if anew:
            self._offset, self._inode = 0, state.st_ino if state else 0
        if state is None or state.st_size == self._offset:
            return anew, []
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                content = file.read()
        except FileNotFoundError:  # a training on other data has moved it aside in this moment
            return anew, []
        content = content[: content.rfind(b"\n") + 1]
        self._offset += len(content)
        return anew, content.splitlines()
