"""What does the study say? Tables and figures of all its runs."""


rule report:
    input:
        [os.path.join(RES, run, "run.json") for run in RUNS],
        [os.path.join(RES, run, "metrics.json") for run in RUNS],
    output:
        expand(
            os.path.join(RES, "reports", STUDY.name, "{table}.{kind}"),
            table=[
                "main_table",
                "per_class",
                "cost",
                "significance",
                "paper_ledger",
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
        **HERE,
    params:
        title=STUDY.title,
        reports=plugins.names("reports"),
    shell:
        "{resources.python:q} -m pais_bench report {resources.study:q} --results {resources.results:q} 2>&1 | tee -i {log:q}"
