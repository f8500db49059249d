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
        expand(
            os.path.join(RES, "reports", STUDY.name, "{table}.{kind}"),
            table=[
                "main_table",
                "per_class",
                "cost",
                "significance",
                "paper_ledger",
                "checkpoints",
                "protocols",
            ],
            kind=["csv", "md", "tex"],
        ),
        report(
            expand(
                os.path.join(RES, "reports", STUDY.name, "{figure}.{kind}"),
                figure=[
                    "convergence",
                    "convergence_images",
                    "convergence_time",
                    "label_efficiency",
                    "accuracy_cost",
                ],
                kind=["pdf", "png"],
            ),
            category="figures",
        ),
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
