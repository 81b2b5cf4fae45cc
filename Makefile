# drover. `make help` lists what there is to make.

GO      ?= go
TESTBED := $(or $(DROVER_TESTBED),$(CURDIR)/.testbed)
STATIC  := CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w'
LINT    := v2.15.0
FUZZTIME ?= 120s

# A test's tier follows from what it needs: testenv/vm virtual machines, packages that use the test bed, or whose tests do, root and
# test hosts, all others nothing.
tests = $(GO) list -f '{{.ImportPath}} {{.ImportPath}},{{join .Deps ","}},{{join .TestImports ","}},{{join .XTestImports ","}}' ./...
bed   = drover/testenv/\(host\|rootfs\|cluster\|vm\)
hosts = $(shell $(tests) | grep '$(bed)' | cut -d' ' -f1 | grep -v /testenv/vm)
unit  = $(shell $(tests) | grep -v '$(bed)' | cut -d' ' -f1)

.PHONY: help build testbed test sim mutations test-unit test-hosts test-vm chaos soak fuzz bench bench-report bench-report-vm demo lint clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

build: ## bin/drover, static
	$(STATIC) -o bin/drover ./cmd/drover

testbed: ## the root file system of the test hosts, once, under .testbed (needs root and Debian)
	$(GO) run ./testenv/testbed build

test: test-unit test-hosts ## every tier that a build machine has time for
	@echo "ran the tiers: unit (with sim), hosts. Not run: vm (make test-vm)"

test-unit: ## tests that run anywhere, with the race detector; the simulator is among them
	$(GO) test -race -timeout 10m $(filter-out drover/testenv/sim,$(unit))
	$(GO) test -timeout 10m ./testenv/sim -schedules 50000

sim: ## a million simulated schedules: prints what was tried, and fails if a promise is broken or anything was not
	$(GO) test -timeout 60m -count 1 -run Whatever ./testenv/sim -schedules 1000000 -v

mutations: ## breaks the protocol on purpose, each rule in turn, and fails if a breakage is not caught
	$(GO) test -timeout 60m -count 1 -run Every ./testenv/mutations -all

test-hosts: testbed ## real CRIU on real hosts: namespaces on this machine (needs root)
	$(GO) test -p 1 -timeout 30m $(hosts)

chaos: testbed ## whoever dies, one copy lives: every kill point three times, some hours; CHAOS='-points target.*CRIU -stop 2s' chooses
	$(GO) test -timeout 24h -run TestKillPoints -v ./testenv/e2e/moves -args -rounds 3 -stop 30s $(CHAOS)

soak: testbed ## 500 moves of ten trees between three hosts in a row, under random faults; SOAK='-seed 7' draws those of an earlier one
	$(GO) test -timeout 24h -run TestMovesUnderRandomFaults -v ./testenv/e2e/moves -args -soak 500 $(SOAK)

fuzz: ## every decoder (docs/security.md lists them), FUZZTIME each; by default about an hour in all
	@set -e; for file in $$(grep -rl --include='*_test.go' '^func Fuzz' . | sort); do \
		for f in $$(sed -n 's/^func \(Fuzz[A-Za-z]*\).*/\1/p' $$file); do \
			echo "$$(dirname $$file) $$f"; $(GO) test $$(dirname $$file) -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME); \
		done; \
	done

test-vm: testbed ## kernels with soft-dirty, in virtual machines (needs root)
	$(GO) test -p 1 -timeout 30m ./testenv/vm/...

bench: testbed ## the figures that the documents state, measured here
	$(GO) test -p 1 -timeout 60m -run '^$$' -bench . -skip Emulat -benchtime 1x ./coordinator/consensus ./testenv/...

bench-report: testbed ## docs/benchmarks: moves by hand and by drover side by side; BENCH='-sizes 4G' chooses what (-args of the benchmark)
	$(GO) test -timeout 180m -run '^$$' -bench Compare -benchtime 1x ./testenv/bench -args $(BENCH) -report $(CURDIR)/docs/benchmarks

bench-report-vm: testbed ## its part about kernels with soft-dirty, CRIU's pre-dump and phaul beside drover; KEEP=1 adds to what is there
	$(GO) test -timeout 180m -run '^$$' -bench CompareEmulated -benchtime 1x ./testenv/vm -args $(if $(BENCH),-bench '$(BENCH)') $(if $(KEEP),-keep) -report $(CURDIR)/docs/benchmarks

demo: testbed ## a redis moves between three hosts while a client counts
	$(GO) run ./testenv/demo

lint: $(TESTBED)/bin/golangci-lint-$(LINT) ## golangci-lint, built from source once; and that everything compiles for arm64 too
	$< run ./...
	GOARCH=arm64 $(GO) vet ./...

$(TESTBED)/bin/golangci-lint-$(LINT):
	mkdir -p $(@D)
	GOBIN=$(@D) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT)
	mv $(@D)/golangci-lint $@

clean: ## remove what was built, the test bed included
	rm -rf bin $(TESTBED)
