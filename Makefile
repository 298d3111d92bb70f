# Everything worth knowing is in scripts/; this is the list of what there is to do.
.DEFAULT_GOAL := help
.PHONY: help demo test bench fuzz soak

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 16

demo: ## fresh machine to sealed, verified documents and a short load test (LISTEN=127.0.0.1:7543, DURATION=15s)
	@scripts/demo.sh

test: ## fresh machine to every test passed
	@scripts/test.sh

bench: ## the benchmarks, with a table at the end
	@scripts/bench.sh

fuzz: ## fuzzes the document engine and the front end, needs a nightly compiler and cargo-fuzz (SECONDS=1200, for each target)
	@scripts/fuzz.sh $(SECONDS)

soak: ## the token pool under load on a long bad day (MINUTES=10)
	@scripts/soak.sh $(or $(MINUTES),10)
