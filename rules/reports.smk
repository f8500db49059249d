"""What does the study say? Tables and figures of all its runs."""


rule report:
    input:
        [os.path.join(RES, run, "run.json") for run in RUNS],
        [os.path.join(RES, run, "metrics.json") for run in RUNS],
    output:
        multiext(
            os.path.join(RES, "reports", STUDY.name, "main_table"),
            ".csv",
            ".md",
            ".tex",
        ),
        multiext(
            os.path.join(RES, "reports", STUDY.name, "convergence"), ".pdf", ".png"
        ),
        multiext(
            os.path.join(RES, "reports", STUDY.name, "label_efficiency"),
            ".pdf",
            ".png",
        ),
        multiext(
            os.path.join(RES, "reports", STUDY.name, "per_class"),
            ".csv",
            ".md",
            ".tex",
        ),
        multiext(
            os.path.join(RES, "reports", STUDY.name, "cost"),
            ".csv",
            ".md",
            ".tex",
        ),
        multiext(
            os.path.join(RES, "reports", STUDY.name, "significance"),
            ".csv",
            ".md",
            ".tex",
        ),
        multiext(
            os.path.join(RES, "reports", STUDY.name, "paper_ledger"),
            ".csv",
            ".md",
            ".tex",
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
