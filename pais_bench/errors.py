"""Define the errors that the command line prints in one sentence, and describe faults of the machine."""

from __future__ import annotations

import errno


class BenchError(Exception):
    """Report a fault of the input or the machine in one sentence: the culprit, then the remedy."""

    def __init__(self, message: str) -> None:
        """Keep the message as one line, also where it quotes a line break."""
        super().__init__(" ".join(message.splitlines()))


class NothingToShow(Exception):
    """Report in one sentence why a table or figure has no data to show."""


REMEDIES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some of the quota",
    errno.EFBIG: "raise the limit of a file's size (ulimit -f)",
    errno.EROFS: "choose another folder, or mount it for writing",
    errno.EACCES: "choose another folder, or ask for the right to read and write there",
    errno.EPERM: "choose another folder, or ask for the right to read and write there",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.EIO: "check the disk",
    errno.EEXIST: "name another path",
    errno.ENOTDIR: "name another path",
    errno.EISDIR: "name another path",
    errno.ESTALE: "wait for the file server",
    errno.ENOMEM: "ask for more memory",
}
MEMORY = "out of memory; ask for more of it, or lower input.max_size_train or --workers"
MESSAGES = {
    "can't allocate memory": MEMORY,
    "could not create a primitive": MEMORY,  # oneDNN's message
    "out of memory": "out of memory of the device; raise --accumulate or --devices, or lower input.max_size_train",
    "connection closed by peer": "another process of this training ended first; its message says why",
    "dataloader worker": "a loader process was killed, by the limit of memory as a rule; ask for more of it, "
    "or lower --workers",
}


def describe_fault(error: BaseException) -> str | None:
    """Return the fault and its remedy in one sentence; None where it is a fault of the program."""
    if isinstance(error, MemoryError):
        return MEMORY
    if isinstance(error, OSError) and error.errno in REMEDIES:
        prefix = f"{error.filename}: " if error.filename else ""
        return f"{prefix}{(error.strerror or str(error)).lower()}; {REMEDIES[error.errno]}"
    if isinstance(error.__context__, OSError) and error.__context__.errno in REMEDIES:
        return describe_fault(error.__context__)  # torch's writer raises another error while it handles this one
    text = str(error).lower()
    return next((sentence for words, sentence in MESSAGES.items() if words in text), None)
