"""What went wrong with the machine? A sentence for what is no fault of the input: space, rights, memory, processes."""

from __future__ import annotations

import errno

REMEDIES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some of the quota",
    errno.EFBIG: "raise the limit of a file's size (ulimit -f)",
    errno.EROFS: "choose another --results, or mount it for writing",
    errno.EACCES: "choose another --results, or ask for the right to write there",
    errno.EPERM: "choose another --results, or ask for the right to write there",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.EIO: "look after the disk",
    errno.ESTALE: "wait for the file server",
    errno.ENOMEM: "ask for more memory",
}
MEMORY = "out of memory; ask for more of it, or lower views.long or --workers"
WORDS = {
    "can't allocate memory": MEMORY,
    "could not create a primitive": MEMORY,  # so says oneDNN
    "out of memory": "out of memory of the device; raise --accumulate or --devices, or lower views.long",
    "dataloader worker": "a loader process was killed, by the limit of memory as a rule; ask for more of it, "
    "or lower --workers",
}


def told(error: BaseException) -> str | None:
    """Give the fault and its remedy in one sentence; None where it is a fault of the program."""
    if isinstance(error, MemoryError):
        return MEMORY
    if isinstance(error, OSError) and error.errno in REMEDIES:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{(error.strerror or str(error)).lower()}; {REMEDIES[error.errno]}"
    text = str(error).lower()
    return next((sentence for words, sentence in WORDS.items() if words in text), None)
