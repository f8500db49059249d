"""Make what a training needs: an environment, a dataset, and the labelled images."""


localrules:
    environment,


rule environment:
    output:
        os.path.join(PROJECT, ".envs", "{backend}-{pins}", "READY"),
    log:
        os.path.join(LOGS, "environment", "{backend}-{pins}.log"),
    conda:
        "../envs/python.yaml"
    resources:
        **COMMON,
        build=os.path.join(workflow.basedir, "envs", "build.py"),
    shell:
        "{resources.python:q} {resources.build:q} {wildcards.backend} 2>&1 | tee -i {log:q}"


rule prepare:
    output:
        os.path.join(RES, DATASET, "dataset.json"),
        os.path.join(RES, DATASET, "train.images.arrow"),
        os.path.join(RES, DATASET, "train.annotations.arrow"),
        os.path.join(RES, DATASET, "val.images.arrow"),
        os.path.join(RES, DATASET, "val.annotations.arrow"),
    log:
        os.path.join(LOGS, DATASET, "prepare.log"),
    conda:
        "../envs/python.yaml"
    resources:
        **COMMON,
        **cluster_resources("prepare"),
    params:
        dataset=lambda wildcards: dataset_identity(),
    shell:
        "{resources.python:q} -m pais_bench prepare {resources.study:q} --results {resources.results:q} 2>&1 | tee -i {log:q}"


if STUDY.split.family != IMPORTED:

    rule split:
        input:
            rules.prepare.output,
        output:
            os.path.join(RES, f"{SPLIT}.json"),
        log:
            os.path.join(LOGS, f"{SPLIT}.log"),
        priority: SHORT
        conda:
            "../envs/python.yaml"
        resources:
            **COMMON,
            **cluster_resources("split"),
        shell:
            "{resources.python:q} -m pais_bench split {resources.study:q} --results {resources.results:q}"
            " --percent {wildcards.percent} --fold {wildcards.fold} 2>&1 | tee -i {log:q}"
