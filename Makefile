PYTHON ?= python3
IN = $(PYTHON) envs/build.py

.DEFAULT_GOAL := help
.PHONY: help demo plan test test-slurm test-backends lint docs lock clean

help:  ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo:  ## train supervised, mean teacher and PAIS on the synthetic data, and print the table
	@python=$$($(IN) workflow) && "$$python" -m pais_bench run demo

STUDY ?= demo
plan:  ## print what is done of a study and what the rest will cost: make plan STUDY=coco
	@python=$$($(IN) workflow) && "$$python" -m pais_bench plan $(STUDY)

test: lint  ## run every check of CI
	@python=$$($(IN) dev) && set -x && "$$python" -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

test-slurm:  ## run the workflow through a real SLURM on this machine, if its packages are installed
	@python=$$($(IN) dev) && set -x && "$$python" -m pytest tests/slurm

# detectron2 is on no package index: its tests run where its environment was built (docs/explanation/backends.md).
test-backends:  ## build mmdet, test every installed backend, and train all of them into one table
	@python=$$($(IN) dev) && mmdet=$$($(IN) mmdet) && set -ex && \
	laws="tests/test_backends.py tests/test_ranks.py tests/test_training.py::test_every_method_trains_and_logs" && \
	"$$mmdet" -m pytest tests/test_mmdet.py $$laws && \
	for ready in .envs/detectron2-*/READY; do \
	  ! test -e "$$ready" || "$${ready%READY}bin/python" -m pytest tests/test_detectron2.py $$laws; \
	done && \
	TEST_BACKENDS=1 "$$python" -m pytest tests/test_one_table.py && \
	"$$python" -m pais_bench doctor

lint:  ## check style, types and the workflow without running a test
	@python=$$($(IN) dev) && set -ex && \
	"$$python" -m ruff check . && \
	"$$python" -m ruff format --check . && \
	"$$python" -m mypy && \
	"$$(dirname "$$python")/snakefmt" --check Snakefile rules && \
	"$$python" -m snakemake --lint

docs:  ## build the pages of docs/ into site/, and refuse a broken link
	@python=$$($(IN) docs) && set -x && NO_MKDOCS_2_WARNING=1 "$$python" -m mkdocs build --strict

# The order matters: each lock takes over the pins of those before it.
COMPILE = UV_CUSTOM_COMPILE_COMMAND="make lock" "$$uv" pip compile --quiet --upgrade --universal --generate-hashes \
	--no-emit-index-url --no-emit-find-links --annotation-style line
lock:  ## pin the newest versions that envs/*.in allow
	@uv=../$$($(IN) uv) && cd envs && set -ex && \
	$(COMPILE) --python-version 3.10 uv.in -o uv.txt && \
	$(COMPILE) --python-version 3.10 torchvision.in -o torchvision.txt && \
	$(COMPILE) --python-version 3.10 mmdet.in -o mmdet.txt && \
	$(COMPILE) --python-version 3.10 -c torchvision.txt detectron2.in -o detectron2.txt && \
	$(COMPILE) --python-version 3.11 -c torchvision.txt workflow.in -o workflow.txt && \
	$(COMPILE) --python-version 3.11 -c torchvision.txt -c workflow.txt dev.in -o dev.txt && \
	$(COMPILE) --python-version 3.11 -c dev.txt docs.in -o docs.txt && \
	cd .. && $(IN) --conda

clean:  ## remove the environments and caches, but no results
	rm -rf .envs .mypy_cache .pytest_cache .ruff_cache *.egg-info build site
