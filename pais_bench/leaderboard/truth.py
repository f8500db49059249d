"""Open the ground truth of a dataset that its organiser has, and check whether a submission is of the same data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pais_bench import plugins
from pais_bench.annotations.sources import read_content
from pais_bench.annotations.store import MANIFEST, Store, write_store
from pais_bench.errors import BenchError
from pais_bench.evaluation.bootstrap_cache import BootstrapAP
from pais_bench.leaderboard.submission import Submission
from pais_bench.splits.draw import draw_split
from pais_bench.study.split import IMPORTED, SplitChoice


@dataclass(frozen=True)
class Truth:
    """Hold the validation set of a dataset, and of a prepared one the training set and the content of both.

    sources: published files of split families that read one.
    """

    label: str
    validation: Store
    train: Store | None
    content: str | None
    sources: Mapping[str, Path]

    @staticmethod
    def open(label: str, path: Path, sources: Mapping[str, Path], folder: Path) -> Truth:
        """Open a prepared dataset, results/datasets/LABEL, or a COCO annotation file, which is prepared in a folder.

        Raises BenchError for a path that is neither, and for what is wrong with the annotations.
        """
        if path.is_dir():
            if not (path / MANIFEST).exists():
                raise BenchError(f"--truth {label}={path}: not a prepared dataset; name results/datasets/LABEL")
            train = Store.open(path, "train") if "train" in Store.subsets(path) else None
            validation = Store.open(path, "val")
            validation.verify()
            return Truth(label, validation, train, read_content(path), sources)
        if not path.is_file():
            raise BenchError(f"--truth {label}={path}: neither a prepared dataset nor an annotation file; name one")
        subset = plugins.load("datasets", "coco").read(path, path.parent)
        write_store(folder, label, {"val": subset})
        return Truth(label, Store.open(folder, "val"), None, None, sources)

    @cached_property
    def bootstrap(self) -> BootstrapAP:
        """Return what computes AP on samples of the images, the same for all submissions."""
        return BootstrapAP(self.validation)

    @cached_property
    def _drawn(self) -> dict[SplitChoice, str]:
        """Return the sha256 of the splits that were drawn so far."""
        return {}

    def require_same_data(self, submission: Submission, validation: str) -> None:
        """Raise BenchError where a submission was evaluated, trained or labelled on other data than the truth's.

        validation is the digest of the validation records that it names.
        """
        if validation != self.validation.digest:
            raise BenchError(
                f"evaluated on the validation records {validation[:8]}, and those of '{self.label}' are "
                f"{self.validation.digest[:8]}; predict and evaluate on the same annotation file"
            )
        if None not in (submission.data, self.content) and submission.data != self.content:
            raise BenchError(
                f"trained on the data {str(submission.data)[:8]}, and that of '{self.label}' is "
                f"{str(self.content)[:8]}; train on the same images and annotations"
            )
        choice, labels = submission.run.split, submission.split_sha256
        expected = self.split_sha256(choice)
        if expected not in (None, labels):
            raise BenchError(
                f"its labelled images ({labels[:8]}) are not those of split {choice.family} {choice.percent:g} % fold "
                f"{choice.fold} ({str(expected)[:8]}); train on that split"
            )

    def split_sha256(self, choice: SplitChoice) -> str | None:
        """Return the sha256 of the labels of a split, drawn here; None where there is nothing to draw it from."""
        if self.train is None or self.undrawable(choice.family):
            return None
        if choice not in self._drawn:
            source = self.sources.get(choice.family)
            self._drawn[choice] = draw_split(self.train, self.label, choice, source).sha256
        return self._drawn[choice]

    def undrawable(self, family: str) -> str:
        """Return why splits of a family cannot be drawn here; nothing where they can."""
        if self.train is None:
            return "the truth has no training set, as a prepared dataset has"
        if family == IMPORTED or family not in plugins.names("families"):
            return f"splits of the family '{family}' are lists of the submitters"
        if plugins.load("families", family).SOURCE and family not in self.sources:
            return f"the family '{family}' reads a published file, which --source names"
        return ""
