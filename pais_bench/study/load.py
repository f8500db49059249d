"""Read a study from YAML, on top of the study that it names as its base, and check it by name against the plugins."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pais_bench import plugins
from pais_bench.errors import BenchError
from pais_bench.study.base import parse
from pais_bench.study.run import BURN_IN, Options, Training
from pais_bench.study.study import Study
from pais_bench.study.yaml_file import read_yaml

STUDIES = Path(__file__).parent
GRIDS = ("networks", "methods")
"""Keys under which a study can remove an entry of its base, by the value null."""


def shipped() -> str:
    """Return the names of the studies that come with the package."""
    return ", ".join(sorted(study.stem for study in STUDIES.glob("*.yaml")))


def load_study(source: str | Path) -> Study:
    """Read a study from a YAML file, or by the name of one that is shipped.

    Raises BenchError that names the file and the key for anything unknown, missing or out of range.
    """
    path = study_path(source)
    study = parse(Study, read_values(path), str(path))
    _check_plugins(study, str(path))
    return _resolve(study, path)


def study_path(source: str | Path, relative_to: Path = Path()) -> Path:
    """Return the file of a study; a name without a suffix is that of a shipped one."""
    path = relative_to / source if Path(source).suffix else STUDIES / f"{source}.yaml"
    if not path.is_file():
        raise BenchError(f"{source}: no such study file; give a path, or one of the shipped studies: {shipped()}")
    return path


def read_values(path: Path, derived: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Read a study file's values, merged into those of its `base`: mappings key by key, anything else as a whole.

    Under networks and methods null removes an entry of the base; its note is not inherited. derived are the files that
    are based on this one. Raises BenchError for a file that is no YAML mapping, or is based on itself.
    """
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise BenchError(f"{path}: a study is a mapping of keys; see {STUDIES / 'demo.yaml'}")
    base = values.pop("base", None)
    if base is None:
        return values
    if path.resolve() in derived or not isinstance(base, str):
        raise BenchError(f"{path}: 'base': {base} is not another study; give a path, or one of {shipped()}")
    base_path = study_path(base, path.parent)
    inherited = read_values(base_path, (*derived, path.resolve()))
    inherited.pop("note", None)  # it is about the numbers of that study alone
    return _merge(_with_absolute_paths(inherited, base_path.resolve().parent), values)


def _with_absolute_paths(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Make the relative paths of a base absolute: they are relative to its file, and not to the file based on it."""
    for key, name in (("dataset", "root"), ("split", "source")):
        section = values.get(key)
        if isinstance(section, dict) and isinstance(section.get(name), str):
            section[name] = str(_located(folder, section[name]))
    if isinstance(values.get("external"), list):
        values["external"] = [str(_located(folder, path)) for path in values["external"]]
    return values


def _located(folder: Path, path: object) -> Path:
    """Return a path of a study file in a folder; raise BenchError where ~ is of a user that is not on this machine."""
    try:
        return folder / Path(str(path)).expanduser()
    except RuntimeError as error:
        raise BenchError(f"{path}: there is no such user here; give the path of the folder") from error


def _merge(base: Mapping[str, Any], values: Mapping[str, Any], key: str = "") -> dict[str, Any]:
    merged = dict(base)
    for name, value in values.items():
        if key in GRIDS and value is None:
            merged.pop(name, None)
        elif isinstance(value, Mapping) and isinstance(merged.get(name), Mapping):
            merged[name] = _merge(merged[name], value, name)
        else:
            merged[name] = value
    return merged


def _check_plugins(study: Study, source: str) -> None:
    choices = [("datasets", study.dataset.name, study.dataset.options, "dataset")]
    choices.append(("families", study.split.family, {}, "split.family"))
    for label, network in study.networks.items():
        choices.append(("backends", f"{network.backend}/{network.name}", network.options, f"networks.{label}"))
    for label, method in study.methods.items():
        choices.append(("methods", method.name, method.options, f"methods.{label}"))
    choices += [("metrics", name, {}, "metrics") for name in study.metrics]
    if BURN_IN in study.methods:
        raise BenchError(
            f"{source}: methods.{BURN_IN}: this is the name of trainings that methods begin with; take another"
        )
    if "coco" not in study.metrics:
        raise BenchError(f"{source}: 'metrics': the tables need COCO AP; add coco to the list")
    for group, name, options, key in choices:
        try:
            known = plugins.option_names(group, name)
        except BenchError as error:
            raise BenchError(f"{source}: {key}: {error}") from error
        for unknown in sorted(set(options) - known):
            offered = f"; known keys here: {', '.join(sorted(known)) or 'none'}"
            raise BenchError(f"{source}: {key}.options: unknown key '{unknown}'{offered}")
    for label, network in study.networks.items():
        for name in network.methods or ():
            if name not in study.methods:
                raise BenchError(f"{source}: networks.{label}.methods: there is no method '{name}' in this study")
        parse(Training, {**study.training.model_dump(), **network.training}, f"{source}: networks.{label}.training")
        for name in study.methods_of(label):
            _check_pair(study, source, label, name)


def _check_pair(study: Study, source: str, network_label: str, label: str) -> None:
    """Raise BenchError where a method needs what a network or the study does not have, or sets otherwise."""
    network, method = study.networks[network_label], study.methods[label]
    plugin = plugins.load("methods", method.name).Method
    training = {**study.training.model_dump(), **network.training, **method.training}
    parse(Training, training, f"{source}: methods.{label}.training")
    limits = study.training.model_copy(update={**network.training, **method.training})
    if plugin.uses_unlabelled and limits.burn_in >= limits.steps:
        raise BenchError(
            f"{source}: methods.{label}: burn_in {limits.burn_in} of {limits.steps} steps leaves none with unlabelled "
            f"images; lower training.burn_in"
        )
    name = f"{network.backend}/{network.name}"
    for option, value in sorted(plugin.network_options.items()):
        if option not in plugins.option_names("backends", name):
            raise BenchError(
                f"{source}: methods.{label}: needs the option '{option}', which {name} does not have; name the others "
                f"in networks.{network_label}.methods"
            )
        if network.options.get(option, value) != value:
            raise BenchError(
                f"{source}: networks.{network_label}.options.{option}: {network.options[option]}, but methods.{label} "
                f"needs {value}; remove the option, or name the other methods in networks.{network_label}.methods"
            )
    for needed, function, what in (
        (plugin.needs_box_scorer, "predict_with_scorers", "a box scorer"),
        (plugin.needs_soft_predictions, "predict_soft", "soft predictions"),
    ):
        if needed and plugins.lacks(name, function):
            raise BenchError(
                f"{source}: methods.{label}: needs a network with {what}, which {name} has not; name the other "
                f"methods in networks.{network_label}.methods"
            )
    if plugin.needs_pretrained_teacher != (method.teacher is not None):
        remedy = "name a method of this study, such as supervised" if method.teacher is None else "it has no use for it"
        raise BenchError(
            f"{source}: methods.{label}.teacher: {'missing' if method.teacher is None else 'given'}; {remedy}"
        )
    _check_teachers(study, source, network_label, label)


def _check_teachers(study: Study, source: str, network_label: str, label: str) -> None:
    """Raise BenchError where the chain of a method's teachers leaves the network's methods or ends in itself."""
    available = study.methods_of(network_label)
    chain = [label]
    while (teacher := study.methods[chain[-1]].teacher) is not None:
        if teacher not in available or teacher in chain:
            raise BenchError(
                f"{source}: methods.{chain[-1]}.teacher: '{teacher}' is no other method that trains '{network_label}'; "
                f"choose one of {', '.join(name for name in available if name not in chain)}"
            )
        chain.append(teacher)


def _resolve(study: Study, path: Path) -> Study:
    """Fill in the defaults of methods and datasets, so that a changed default is another run, and the paths."""
    methods = {
        label: method.model_copy(
            update={"options": _defaults("methods", method.name, method.options, f"{path}: methods.{label}")}
        )
        for label, method in study.methods.items()
    }
    options = _defaults("datasets", study.dataset.name, study.dataset.options, f"{path}: dataset")
    root = study.dataset.root and _located(path.parent, study.dataset.root)
    dataset = study.dataset.model_copy(update={"options": options, "root": root})
    source = study.split.source and _located(path.parent, study.split.source)
    split = study.split.model_copy(update={"source": source})
    external = tuple(_located(path.parent, description) for description in study.external)
    return study.model_copy(update={"methods": methods, "dataset": dataset, "split": split, "external": external})


def _defaults(group: str, name: str, options: Options, source: str) -> Options:
    parsed: BaseModel = parse(plugins.load(group, name).Options, options, f"{source}.options")
    return parsed.model_dump(mode="json")
