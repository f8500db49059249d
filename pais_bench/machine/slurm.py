"""Check what the jobs of a study request against the partitions of SLURM."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, get_args

from pais_bench.errors import BenchError
from pais_bench.machine.finding import Finding, ask
from pais_bench.study.resources import Resources, Rule, resources_for

SINFO = ("sinfo", "--noheader", "--exact", "--format", "%P|%a|%l|%D|%c|%m|%G")
SACCT = ("sacct", "--noheader", "--allocations", "--starttime", "now")
RULES = [rule for rule in get_args(Rule) if rule != "default"]


class Nodes(NamedTuple):
    """Hold the nodes of one kind in a partition: their number, and CPUs, memory in MB and GPUs of each.

    minutes: the time limit of the partition, None without one | default: jobs that name no partition are put there.
    """

    partition: str
    default: bool
    up: bool
    minutes: int | None
    number: int
    cpus: int
    mem_mb: int
    gpus: int


def parse_sinfo(listed: str) -> list[Nodes]:
    """Parse what the command SINFO prints; raise BenchError for lines that are not of its format."""
    nodes = []
    for line in filter(None, listed.splitlines()):
        try:
            partition, state, limit, *counts, gres = (part.strip() for part in line.split("|"))
            number, cpus, mem_mb = (int(count) for count in counts)
            name = partition.removesuffix("*")
            minutes = _minutes(limit)
            nodes.append(Nodes(name, name != partition, state == "up", minutes, number, cpus, mem_mb, _gpus(gres)))
        except ValueError:
            raise BenchError(f"sinfo: its line '{line}' is none of the format {SINFO[-1]}") from None
    return nodes


def check_slurm(
    resources: Mapping[Rule, Resources] | None, profile: Mapping[str, Any], longest: float | None
) -> Iterator[Finding]:
    """Check SLURM, and what the rules of a study request of it; profile is that of Snakemake, for what they leave out.

    longest is the time that the longest training left takes, in seconds, if it is known.
    """
    try:
        listed = ask(*SINFO)
    except BenchError as error:
        yield Finding("warn", f"no SLURM: {error}; the profile slurm fails here until that is repaired")
        return
    if listed is None:
        yield Finding("ok", "no SLURM: sinfo is not installed; the profile local trains on this machine")
        return
    try:
        nodes = parse_sinfo(listed)
    except BenchError as error:
        yield Finding("warn", f"SLURM: {error}; its partitions are not checked")
        return
    for one in nodes:
        limit = "no time limit" if one.minutes is None else f"{one.minutes / 60:.1f} h"
        default = " (default)" if one.default else ""
        text = (
            f"SLURM: {one.partition}{default}: {one.number} nodes of {one.cpus} CPUs, {one.mem_mb} MB, {one.gpus} GPUs"
        )
        yield Finding("ok" if one.up else "warn", f"{text}, {limit}" if one.up else f"{text}: is down; ask for it")
    try:
        ask(*SACCT)
    except BenchError as error:
        yield Finding("warn", f"{error}; start with ` -- --slurm-status-command squeue`")
    if resources is not None:
        yield from check_requests(resources, nodes, profile, longest)


def check_requests(
    resources: Mapping[Rule, Resources], nodes: Sequence[Nodes], profile: Mapping[str, Any], longest: float | None
) -> Iterator[Finding]:
    """Yield what a job of each rule requests that its partition has not; rules with one fault share a finding."""
    defaults = profile.get("default-resources", {})
    rules: dict[Finding, list[str]] = {}
    for rule in RULES:
        asked = Resources(
            **{
                "mem_mb": defaults.get("mem_mb", 1),
                "minutes": defaults.get("runtime", 1),
                **resources_for(resources, rule).model_dump(exclude_none=True),
            }
        )
        for finding in _check_rule(asked, nodes, 1 + int(profile.get("retries", 0))):
            rules.setdefault(finding, []).append(rule)
        if rule == "train" and longest and longest / 60 > (asked.minutes or 0):
            text = (
                f"the longest training left takes {longest / 3600:.1f} h, a job has {(asked.minutes or 0) / 60:.1f} h"
            )
            rules.setdefault(Finding("ok", f"{text}: it saves, and goes back into the queue"), []).append(rule)
    for finding, names in rules.items():
        yield Finding(finding.level, f"resources of {', '.join(names)}: {finding.text}")


def _check_rule(asked: Resources, nodes: Sequence[Nodes], attempts: int) -> Iterator[Finding]:
    """Yield why SLURM would refuse a job, or let it wait for ever; attempts includes the first.

    Of several partitions, as gpu,long, SLURM takes the one that starts the job first, so that one that suits is enough.
    """
    known = list(dict.fromkeys(one.partition for one in nodes))
    named = asked.partition.split(",") if asked.partition else [one.partition for one in nodes if one.default]
    if absent := [name for name in named if name not in known]:
        yield Finding("fail", f"there is no partition '{absent[0]}'; set partition to one of {', '.join(known)}")
        return
    if not named:
        yield Finding("fail", f"SLURM has no default partition; set partition to one of {', '.join(known)}")
        return
    found = [[*_check_partition(asked, [one for one in nodes if one.partition == name], attempts)] for name in named]
    yield from min(found, key=lambda findings: sum(finding.level == "fail" for finding in findings))


def _check_partition(asked: Resources, there: Sequence[Nodes], attempts: int) -> Iterator[Finding]:
    """Yield why a partition of these nodes does not suit a job."""
    where, gpus = f"partition {there[0].partition}", asked.gpus or 0
    cpus, mem_mb = (asked.cpus or 1) * max(1, gpus), asked.mem_mb or 0
    yield from _check_time(asked, where, there[0].minutes, attempts)
    short = False
    for needed, has, name, unit in (
        (cpus, max(one.cpus for one in there), "cpus", "CPUs"),
        (gpus, max(one.gpus for one in there), "gpus", "GPUs"),
        (mem_mb, max(one.mem_mb for one in there), "mem_mb", "MB"),
    ):
        if needed > has:
            short = True
            yield Finding("fail", f"{needed} {unit} a node, and no node of {where} has more than {has}; lower {name}")
    fitting = [one for one in there if one.cpus >= cpus and one.gpus >= gpus and one.mem_mb >= mem_mb]
    if short:
        return
    if (asked.nodes or 1) > sum(one.number for one in fitting):
        text = f"{asked.nodes or 1} nodes of {cpus} CPUs, {gpus} GPUs and {mem_mb} MB each"
        yield Finding("fail", f"{text}, and {where} has {sum(one.number for one in fitting)}; lower one of them")
        return
    most = max(one.mem_mb for one in fitting)
    if asked.scaled("mem_mb", attempts) > most:
        text = f"attempt {attempts} requests {asked.scaled('mem_mb', attempts)} MB, and no node of {where} has that"
        yield Finding("warn", f"{text}; set max_mem_mb: {most}")


def _check_time(asked: Resources, where: str, most: int | None, attempts: int) -> Iterator[Finding]:
    """Compare the time of a job with the most minutes that its partitions give, None without a limit."""
    if most is None or asked.minutes is None:
        return
    if asked.minutes > most:
        text = f"{asked.minutes} minutes, and {where} gives {most}: the job would wait for ever"
        yield Finding("fail", f"{text}; set minutes: {most}")
    elif asked.scaled("minutes", attempts) > most:
        text = f"attempt {attempts} requests {asked.scaled('minutes', attempts)} minutes, and {where} gives {most}"
        yield Finding("warn", f"{text}: it would wait for ever; set max_minutes: {most}")


def _minutes(limit: str) -> int | None:
    """Return a time limit, [days-][hours:]minutes:seconds as sinfo prints it, in minutes; None for infinite."""
    if limit == "infinite":
        return None
    days, _, clock = limit.rpartition("-")
    hours, minutes, _ = ([0, 0, 0] + [int(part) for part in clock.split(":")])[-3:]
    return 1440 * int(days or 0) + 60 * hours + minutes


def _gpus(gres: str) -> int:
    """Return the GPUs of a node in its generic resources, such as gpu:a100:4(S:0-1),nvme:1 or gpu:2."""
    counted = (re.match(r"gpu(?::[^:,()]+)?:(\d+)", part) for part in re.sub(r"\([^)]*\)", "", gres).split(","))
    return sum(int(found[1]) for found in counted if found)
