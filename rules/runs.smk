"""How does one run of the grid become a number? Train, predict, evaluate."""


# A signal that says that time is up goes to the shell and to tee as well, which would end before the training has saved;
# the training itself obeys it.
# run.json alone is an output: Snakemake deletes the outputs of a job that fails, and checkpoint.pt and log.jsonl are
# what the same command goes on from.
rule train:
    input:
        rules.prepare.output,
        os.path.join(RES, SPLIT.replace("{family}", STUDY.split.family) + ".json"),
        teacher=trained_teacher,
        environment=environment,
    output:
        os.path.join(RES, RUN, "run.json"),
    log:
        os.path.join(LOGS, RUN, "train.log"),
    conda:
        "../envs/python.yaml"
    threads: processors("train")
    resources:
        **BACKEND,
        **asked_of_training(),
    shell:
        "trap '' TERM USR1; export OMP_NUM_THREADS={threads}; "
        "{resources.launch} {resources.python:q} -m pais_bench train {resources.study:q} --results {resources.results:q}"
        " --percent {wildcards.percent} --fold {wildcards.fold} --network {wildcards.network}"
        " --method {wildcards.method} --threads {threads} --devices {resources.devices}"
        " --nodes {resources.nodes} --workers {resources.workers} 2>&1 | tee -i {log:q}"


rule predict:
    input:
        rules.prepare.output,
        rules.train.output,
        environment=environment,
    output:
        os.path.join(RES, RUN, "predictions{weights}.json"),
    log:
        os.path.join(LOGS, RUN, "predict{weights}.log"),
    conda:
        "../envs/python.yaml"
    threads: processors("predict")
    resources:
        **BACKEND,
        **asked("predict"),
        weights=weights,
    shell:
        "export OMP_NUM_THREADS={threads}; "
        "{resources.python:q} -m pais_bench predict {resources.study:q} --results {resources.results:q}"
        " --percent {wildcards.percent} --fold {wildcards.fold} --network {wildcards.network}"
        " --method {wildcards.method} --weights {resources.weights} --threads {threads} 2>&1 | tee -i {log:q}"


rule evaluate:
    input:
        rules.prepare.output,
        rules.predict.output,
    output:
        os.path.join(RES, RUN, "metrics{weights}.json"),
    log:
        os.path.join(LOGS, RUN, "evaluate{weights}.log"),
    conda:
        "../envs/python.yaml"
    resources:
        **HERE,
        **asked("evaluate"),
        weights=weights,
    params:
        metrics=STUDY.metrics,
    shell:
        "{resources.python:q} -m pais_bench evaluate {resources.study:q} --results {resources.results:q}"
        " --percent {wildcards.percent} --fold {wildcards.fold} --network {wildcards.network}"
        " --method {wildcards.method} --weights {resources.weights} 2>&1 | tee -i {log:q}"
