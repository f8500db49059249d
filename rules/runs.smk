"""Train, predict and evaluate the runs of the grid."""


# SLURM's signal also reaches the shell and tee, which must not end before the training has saved: they ignore it.
# Only run.json is an output: Snakemake deletes the outputs of a failed job, and the same command continues from
# checkpoint.pt and log.jsonl.
# A log keeps the attempts before: of one that is refused, as a training runs already, it has that training's too.
rule train:
    input:
        rules.prepare.output,
        os.path.join(RES, SPLIT.replace("{family}", STUDY.split.family) + ".json"),
        teacher=trained_teacher,
        burn_in=burn_in,
        environment=environment,
    output:
        os.path.join(RES, RUN, "run.json"),
    log:
        os.path.join(LOGS, RUN, "train.log"),
    priority: lambda wildcards: PRIORITIES.get(RUN.format(**wildcards), 0)
    conda:
        "../envs/{backend}.yaml"
    threads: processors("train")
    resources:
        **BACKEND,
        **training_resources(),
        trained_run=trained_run,
    shell:
        "trap '' TERM USR1; export OMP_NUM_THREADS={threads}; "
        "{resources.launch} {resources.python:q} -m pais_bench train {resources.study:q} --results {resources.results:q}"
        " --percent {wildcards.percent} --fold {wildcards.fold} --network {wildcards.network}"
        " {resources.trained_run} --threads {threads} --devices {resources.devices}"
        " --nodes {resources.nodes} {resources.workers} {resources.claim} {resources.locked} 2>&1 | tee -ai {log:q}"


rule predict:
    input:
        rules.prepare.output,
        rules.train.output,
        environment=environment,
    output:
        os.path.join(RES, RUN, "predictions{checkpoint}.json"),
    log:
        os.path.join(LOGS, RUN, "predict{checkpoint}.log"),
    priority: SHORT
    conda:
        "../envs/{backend}.yaml"
    threads: processors("predict")
    resources:
        **BACKEND,
        **cluster_resources("predict"),
        devices=1,
        checkpoint=checkpoint,
    shell:
        "export OMP_NUM_THREADS={threads}; "
        "{resources.python:q} -m pais_bench predict {resources.study:q} --results {resources.results:q}"
        " --percent {wildcards.percent} --fold {wildcards.fold} --network {wildcards.network}"
        " --method {wildcards.method} --checkpoint {resources.checkpoint} --threads {threads} {resources.claim} {resources.locked}"
        " 2>&1 | tee -ai {log:q}"


rule evaluate:
    input:
        rules.prepare.output,
        rules.predict.output,
    output:
        os.path.join(RES, RUN, "metrics{checkpoint}.json"),
    log:
        os.path.join(LOGS, RUN, "evaluate{checkpoint}.log"),
    priority: SHORT
    conda:
        "../envs/python.yaml"
    resources:
        **COMMON,
        **cluster_resources("evaluate"),
        checkpoint=checkpoint,
    params:
        metrics=STUDY.metrics,
    shell:
        "{resources.python:q} -m pais_bench evaluate {resources.study:q} --results {resources.results:q}"
        " --percent {wildcards.percent} --fold {wildcards.fold} --network {wildcards.network}"
        " --method {wildcards.method} --checkpoint {resources.checkpoint} 2>&1 | tee -ai {log:q}"
