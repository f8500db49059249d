"""Make the tables and figures of a study."""


rule import_predictions:
    input:
        rules.prepare.output,
        lambda wildcards: EXTERNAL[wildcards.name],
    output:
        os.path.join(RES, "external", "{dataset}", "{name}", "metrics.json"),
    log:
        os.path.join(LOGS, "external", "{dataset}", "{name}.log"),
    conda:
        "../envs/python.yaml"
    resources:
        **COMMON,
    params:
        metrics=STUDY.metrics,
    shell:
        "{resources.python:q} -m pais_bench import-predictions {resources.study:q} --name {wildcards.name}"
        " --results {resources.results:q} 2>&1 | tee -i {log:q}"


# Only the page is an output, and it is enough that it is written: Snakemake deletes the outputs of a failed job, and a
# figure that fails, which the page and the log name, must not cost the tables.
rule report:
    input:
        [
            os.path.join(RES, "external", STUDY.dataset.label, name, "metrics.json")
            for name in EXTERNAL
        ],
        [os.path.join(RES, run, "run.json") for run in RUNS],
        [
            os.path.join(RES, run, f"metrics{suffix(checkpoint)}.json")
            for run in RUNS
            for checkpoint in STUDY.checkpoints
        ],
    output:
        report(
            os.path.join(RES, "reports", STUDY.name, "report.html"),
            category="tables, figures and runs",
        ),
    log:
        os.path.join(LOGS, "reports", f"{STUDY.name}.log"),
    conda:
        "../envs/python.yaml"
    resources:
        **COMMON,
        **cluster_resources("report"),
    params:
        title=STUDY.title,
        reports=plugins.names("reports"),
    shell:
        "{resources.python:q} -m pais_bench report {resources.study:q} --results {resources.results:q} 2>&1 | tee -i {log:q}"
        " || [ -f {output:q} ]"
