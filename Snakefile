"""Which runs of a study are missing? This workflow makes them: six rules, the six verbs of `pais-bench`.

    prepare -> split -> train -> predict -> evaluate -> report      (and environment, which installs what train needs)

    snakemake --workflow-profile profiles/local --config study=demo

study is a YAML file or the name of a shipped one, results a folder (default: results); python is an interpreter that
is to train and predict instead of the locked environments.
"""

from snakemake.utils import min_version

min_version("9.0")


include: "rules/common.smk"
include: "rules/data.smk"
include: "rules/runs.smk"
include: "rules/reports.smk"


# The last word of a grid with failures: each with the end of its log, and the command that goes on.
onerror:
    shell(failures())


# The numbers stand here beside the report, so that a missing one is seen without .snakemake, Snakemake's memory.
rule all:
    default_target: True
    input:
        rules.report.output,
        rules.report.input,
