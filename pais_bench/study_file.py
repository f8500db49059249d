"""What does a study file say, and can it be done? Read from YAML, checked by name against the shelves; no torch."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import BaseModel

from pais_bench import plugins
from pais_bench.config import Options, Study, Training, parse
from pais_bench.types import BenchError

STUDIES = Path(__file__).parent / "studies"


def shipped() -> str:
    """List the names of the studies that come with the package."""
    return ", ".join(sorted(study.stem for study in STUDIES.glob("*.yaml")))


def load_study(source: str | Path) -> Study:
    """Read a study from a YAML file, or by the name of one that is shipped.

    Raises BenchError that names the file and the key for anything unknown, missing or out of range.
    """
    path = Path(source)
    if not path.suffix:
        path = STUDIES / f"{source}.yaml"
    if not path.is_file():
        raise BenchError(f"{source}: no such study file; give a path, or one of the shipped studies: {shipped()}")
    try:
        values = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise BenchError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise BenchError(f"{path}: a study is a mapping of keys; see {STUDIES / 'demo.yaml'}")
    study = parse(Study, values, str(path))
    _check_plugins(study, str(path))
    return _resolve(study, path)


def _check_plugins(study: Study, source: str) -> None:
    chosen = [("datasets", study.dataset.name, study.dataset.options, "dataset")]
    chosen.append(("families", study.split.family, {}, "split.family"))
    for label, network in study.networks.items():
        chosen.append(("backends", f"{network.backend}/{network.name or label}", network.options, f"networks.{label}"))
    for label, method in study.methods.items():
        chosen.append(("methods", method.name or label, method.options, f"methods.{label}"))
    chosen += [("metrics", name, {}, "metrics") for name in study.metrics]
    if "coco" not in study.metrics:
        raise BenchError(f"{source}: 'metrics': the tables need COCO AP; add coco to the list")
    for shelf, name, options, key in chosen:
        try:
            known = plugins.option_names(shelf, name)
        except BenchError as error:
            raise BenchError(f"{source}: {key}: {error}") from error
        for unknown in sorted(set(options) - known):
            offered = ", ".join(sorted(known)) or "none"
            raise BenchError(f"{source}: {key}.options: unknown key '{unknown}'; known keys here: {offered}")
    for label, network in study.networks.items():
        for name in network.methods or ():
            if name not in study.methods:
                raise BenchError(f"{source}: networks.{label}.methods: there is no method '{name}' in this study")
        parse(Training, {**study.training.model_dump(), **network.training}, f"{source}: networks.{label}.training")
        for name in network.methods or study.methods:
            _check_pair(study, source, label, name)


def _check_pair(study: Study, source: str, network: str, label: str) -> None:
    """Raise BenchError where a method asks for what a network or the study does not have."""
    chosen, method = study.networks[network], study.methods[label]
    plugin = plugins.load("methods", method.name or label).Method
    training = {**study.training.model_dump(), **chosen.training, **method.training}
    parse(Training, training, f"{source}: methods.{label}.training")
    name = f"{chosen.backend}/{chosen.name or network}"
    for missing in sorted(set(getattr(plugin, "network", {})) - plugins.option_names("backends", name)):
        others = f"name the others in networks.{network}.methods"
        raise BenchError(
            f"{source}: methods.{label}: needs the option '{missing}', which {name} does not have; {others}"
        )
    if getattr(plugin, "trained_teacher", False) != (method.teacher is not None):
        remedy = "name a method of this study, such as supervised" if method.teacher is None else "it has no use for it"
        raise BenchError(
            f"{source}: methods.{label}.teacher: {'missing' if method.teacher is None else 'given'}; {remedy}"
        )
    seen = [label]
    while (teacher := study.methods[seen[-1]].teacher) is not None:
        if teacher not in (chosen.methods or study.methods) or teacher in seen:
            raise BenchError(
                f"{source}: methods.{seen[-1]}.teacher: '{teacher}' is no other method that trains '{network}'; "
                f"choose one of {', '.join(one for one in (chosen.methods or study.methods) if one not in seen)}"
            )
        seen.append(teacher)


def _resolve(study: Study, path: Path) -> Study:
    """Fill in the defaults of methods and datasets, so that a changed default is another run, and the paths."""
    methods = {
        label: method.model_copy(
            update={"options": _defaults("methods", method.name or label, method.options, f"{path}: methods.{label}")}
        )
        for label, method in study.methods.items()
    }
    options = _defaults("datasets", study.dataset.name, study.dataset.options, f"{path}: dataset")
    root = study.dataset.root and (path.parent / study.dataset.root.expanduser())
    dataset = study.dataset.model_copy(update={"options": options, "root": root})
    source = study.split.source and (path.parent / study.split.source.expanduser())
    split = study.split.model_copy(update={"source": source})
    external = tuple(path.parent / one.expanduser() for one in study.external)
    return study.model_copy(update={"methods": methods, "dataset": dataset, "split": split, "external": external})


def _defaults(shelf: str, name: str, options: Options, source: str) -> Options:
    chosen: BaseModel = parse(plugins.load(shelf, name).Options, options, f"{source}.options")
    return chosen.model_dump(mode="json")
