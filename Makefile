# What a person runs here. .ci/with-uv brings uv where there is none.
.DEFAULT_GOAL := help
DEMO ?= demo
WORKERS ?= 3

.PHONY: help demo test quick nightly bench lint generate wheel clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## generate a project into ./demo, train it, gate it, predict with it
	@if [ -e "$(DEMO)" ]; then echo "$(DEMO) exists: remove it, or name another folder with make demo DEMO=folder."; exit 1; fi
	@.ci/with-uv .ci/demo "$(DEMO)"

test: ## each promise at least once, what a landing waits for: see docs/testing.md
	@.ci/packages
	.ci/with-uv uv run pytest -n $(WORKERS) --slowest 20

quick: ## the tests that need no installed project
	@.ci/packages
	.ci/with-uv uv run pytest -n $(WORKERS) --tier quick --slowest 20

nightly: ## all cases: every release, situation, provider and kill point, 300 drawn updates
	@.ci/packages nightly
	failed=0; .ci/pythons || failed=1; \
	RUNG_TRIALS=300 .ci/with-uv uv run pytest -n $(WORKERS) --tier nightly --slowest 20 && exit $$failed

bench: ## measure what the template promises to cost, or parts of it: ONLY="service memory"
	.ci/with-uv uv run python tests/bench.py $(ONLY)

lint: ## style, types and files of this repository
	.ci/with-uv uv run pre-commit run --all-files --hook-stage manual

generate: ## write what follows from the manifests of adapters and copier/paths.yml
	@.ci/with-uv uv run python copier/generate.py

wheel: ## build the runtime as a package into dist/, the same bytes from the same commit
	@.ci/with-uv uv build --quiet --wheel --out-dir dist runtime && ls dist/*.whl

clean: ## remove what can be made again
	rm -rf demo dist .tox .mypy_cache .pytest_cache .ruff_cache
