"""Make the missing runs of a study: eight rules, of which six are commands of `pais-bench` in this order:

    prepare -> split -> train -> predict -> evaluate -> report

environment installs what train needs, and import_predictions evaluates the predictions of another codebase.

    snakemake --workflow-profile profiles/local --config study=demo

study is a YAML file or the name of a shipped one, results a folder (default: results); python is an interpreter that
trains and predicts instead of the locked environments; backends="torchvision mmdet" leaves out the runs of other
backends, and the report shows them as missing.
"""

from snakemake.utils import min_version

min_version("9.27")


include: "rules/common.smk"
include: "rules/data.smk"
include: "rules/runs.smk"
include: "rules/reports.smk"


# Print each failed run with the end of its log and the command that continues it.
onerror:
    shell(failures_command())


# The inputs of the report are listed too, so that a missing one is found without the metadata in .snakemake.
rule all:
    default_target: True
    input:
        rules.report.output,
        rules.report.input,
