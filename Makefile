# CairnMQ. `make` alone prints the targets.

GO        ?= go
FUZZTIME  ?= 10s
# For make test; -race on a machine whose Go can do it.
TESTFLAGS ?= -timeout 20m -pgo=off
# For make torture: about half a second each.
CYCLES    ?= 500
# For make figures: 10 GB of backlog need about 12 GB of disk.
FIGURES   ?= -backlog 1GB,10GB

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
READINGS    := testdata/weather/seattle-weather-hourly-normals.csv
PLATFORMS   := linux/amd64 linux/arm64 linux/arm darwin/arm64 windows/amd64

# The race detector needs a C compiler. Without one Go reports 0 here.
RACE := $(if $(filter 1,$(shell $(GO) env CGO_ENABLED)),-race)

.DEFAULT_GOAL := help
.PHONY: help build run test vet lint layers fuzz cross demo torture bench bench-build bench-peers bench-scaling bench-small bench-smoke figures profile docs spec clean

help: # print this list
	@sed -nE 's/^([a-z-]+):[^#]*# (.*)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 17

build: # the broker, one static program: bin/cairnmq
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags='-s -w' -o bin/cairnmq ./cmd/cairnmq

run: build # run the broker with its built-in configuration: 127.0.0.1:1883, data in ./data
	bin/cairnmq serve

test: # all tests, with the race detector if there is a C compiler
	$(if $(RACE),,@echo "no C compiler: testing without the race detector")
	$(GO) test $(RACE) $(TESTFLAGS) ./...
	$(if $(RACE),@# What cannot run under the race detector: power cuts, and messages of 256 MB.)
	$(if $(RACE),$(GO) test $(TESTFLAGS) ./segment/... ./storage/...)
	$(if $(RACE),$(GO) test $(TESTFLAGS) -run 'TheLargestMessage|RandomOperations|KeptSequences' ./mqtt/broker)

vet: # go vet
	$(GO) vet ./...
	cd bench/peers && $(GO) vet ./...

lint: # gofmt, go vet, staticcheck
	@files=$$(gofmt -l .); if [ -n "$$files" ]; then echo "not formatted by gofmt:"; echo "$$files"; exit 1; fi
	$(GO) vet ./...
	cd bench/peers && $(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...

# Imports are read from the files and not asked of go list, so that files for
# other systems and tests count as well. A line is: directory, imported path.
IMPORTS = grep -rHE --include='*.go' '^(import)?[[:space:]]*([[:alnum:]_.]+[[:space:]]+)?"[^"]+"[[:space:]]*(//.*)?$$' cmd mqtt storage segment index bench \
	| sed -E 's,^([^:]*)/[^/:]*:[^"]*"([^"]*)".*,\1 \2,'
ABOVE   = (segment(/[^ ]*)? cairnmq/(index|storage|mqtt|cmd|bench)|index(/[^ ]*)? cairnmq/(segment|storage|mqtt|cmd|bench)|storage(/[^ ]*)? cairnmq/(mqtt|cmd|bench)|mqtt(/[^ ]*)? cairnmq/(index|cmd|bench)|cmd(/[^ ]*)? cairnmq/(index|bench)|bench(/[^ ]*)? cairnmq/(segment|index|storage|mqtt|cmd))

# "cairnmq bench" is the load generator as a command, so cmd may import
# bench/load. That is the only door: the generator still knows nothing of the
# product, and measures it from outside like any other broker.
BENCHCMD = cmd(/[^ ]*)? cairnmq/bench/load

layers: # cmd > mqtt > storage > segment, index; bench knows none of them
	@! $(IMPORTS) | grep -vxE '$(BENCHCMD)' | grep -E '^$(ABOVE)(/|$$)' || { echo "layers: the imports above go the wrong way"; exit 1; }
	@! $(IMPORTS) | grep -E ' github.com/cockroachdb/pebble' | grep -vE '^index(/| )' || { echo "layers: only index imports Pebble"; exit 1; }
	@found=$$(grep -rlE --include='*.go' '"github.com/edsrzf/mmap-go"' .); [ "$$found" = ./segment/mapping.go ] || \
		{ echo "layers: only segment/mapping.go imports mmap-go, but:" $$found; exit 1; }
	@echo "layers: good"

fuzz: # every fuzz target for FUZZTIME (10s)
	@grep -rHoE --include='*_test.go' '^func Fuzz[[:alnum:]_]+' . | sed -E 's,/[^/:]*:func , ,' | sort | while read -r dir name; do \
		echo "== $$dir $$name"; \
		$(GO) test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) $$dir || exit 1; \
	done

cross: # build for the other platforms, and look for mistakes that only 32 bits show
	@bad=; for p in $(PLATFORMS); do \
		echo "== $$p"; \
		GOOS=$${p%/*} GOARCH=$${p#*/} GOARM=7 CGO_ENABLED=0 $(GO) build -pgo=off -o /dev/null ./cmd/... || bad="$$bad $$p"; \
	done; [ -z "$$bad" ] || { echo "cross: does not build:$$bad"; exit 1; }
	@echo "== linux/arm: vet, alignment of 64-bit atomics"
	@GOOS=linux GOARCH=arm GOARM=7 CGO_ENABLED=0 $(GO) vet ./...
	@GOBIN=$(CURDIR)/bin $(GO) install $(STATICCHECK)
	@GOOS=linux GOARCH=arm GOARM=7 CGO_ENABLED=0 bin/staticcheck -checks SA1027 ./...

demo: build # 26,277 readings through a SIGKILL: acknowledged means kept (needs mosquitto-clients)
	$(GO) run ./bench/cmd/demo bin/cairnmq $(READINGS)

torture: build # SIGKILL under load, again and again: nothing acknowledged may be lost (make torture CYCLES=500)
	$(GO) run ./bench/cmd/torture -cycles $(CYCLES) bin/cairnmq

bench: # the benchmarks of the packages
	$(GO) test -run '^$$' -bench . -benchmem ./...

# The page's tables, each by one command. STUDY changes how long: for a try,
# make bench-peers STUDY='-rounds 1 -measure 300ms -backlog 0.1 -only "QoS 1"'
STUDY     ?=
PAGE      ?= docs/benchmarks.md
RUMQTTD   := 0.20.0
STUDYING  = bin/study $(1) $(if $(PAGE),-page $(PAGE)) $(STUDY)

bench-build: build # what the studies need: floor, study, the other brokers
	$(GO) build -o bin/ ./bench/cmd/floor ./bench/cmd/study
	cd bench/peers && $(GO) build -o ../../bin/peers/mochi ./mochi
	cd bench/peers && $(GO) build -o ../../bin/peers/nats-server github.com/nats-io/nats-server/v2
	@# Not with --locked: a crate that it pins does not build with Rust of 2026.
	@if [ -x bin/peers/rumqttd ]; then :; \
	elif ! command -v cargo >/dev/null; then echo "rumqttd is left out: there is no cargo"; \
	elif cargo install -q rumqttd --version $(RUMQTTD) --root bin/peers/cargo; then mv bin/peers/cargo/bin/rumqttd bin/peers/; \
	else echo "rumqttd is left out: cargo could not build it, or crates.io is not reached"; fi
	@[ -x /usr/sbin/mosquitto ] || command -v mosquitto >/dev/null || echo "mosquitto is left out: apt-get install mosquitto"

bench-peers: bench-build # beside other brokers, interleaved, into docs/benchmarks.md (hours, 25 GB of disk)
	$(call STUDYING,peers)

bench-scaling: build # one core and two, and as things grow, into docs/benchmarks.md (an hour, 25 GB of disk)
	$(GO) build -o bin/ ./bench/cmd/study
	$(call STUDYING,scaling)

bench-small: build # a small device, and bytes to disk per byte, into docs/benchmarks.md (half an hour)
	$(GO) build -o bin/ ./bench/cmd/study
	$(call STUDYING,small)

bench-smoke: build # every scenario for a moment, only to see that all are clean (seconds)
	$(GO) build -o bin/ ./bench/cmd/study
	bin/study smoke

figures: build # restart time, memory and the price of offline sessions (takes minutes and disk)
	$(GO) run ./bench/cmd/figures $(FIGURES) bin/cairnmq

# The compiler goes by cmd/cairnmq/default.pgo, if that is there: 6 % less
# processor time for a message, and twice the time to build. It is not committed.
profile: # see what the broker does under load, and build it for that
	@set -e; dir=$$(mktemp -d); trap "rm -rf $$dir" EXIT; \
	CGO_ENABLED=0 $(GO) build -pgo=off -trimpath -o $$dir/cairnmq ./cmd/cairnmq; \
	CAIRNMQ_DEBUG_PPROF=127.0.0.1:18861 $$dir/cairnmq serve --data $$dir/data --listen 127.0.0.1:18862 --log-level warn & broker=$$!; \
	trap "kill $$broker; rm -rf $$dir" EXIT; sleep 1; \
	PPROF_TMPDIR=$$dir $(GO) tool pprof -proto -seconds 30 -output $$dir/default.pgo http://127.0.0.1:18861/debug/pprof/profile & taken=$$!; \
	for q in "1 publish10 pairs10 fanin10 fanout10 store" "0 pairs10 fanin10 fanout10" "2 fanin10"; do \
		$$dir/cairnmq bench --address 127.0.0.1:18862 --qos $$q; \
	done; wait $$taken; mv $$dir/default.pgo cmd/cairnmq/default.pgo
	$(MAKE) build

docs: # write docs/configuration.md and docs/conformance.md anew
	$(GO) generate ./mqtt/config
	$(GO) run ./mqtt/conformance/spec -quiet -page docs/conformance.md -write

spec: # every requirement of MQTT: the line that obeys, the test that proves, and whether it passed
	$(GO) run ./mqtt/conformance/spec -run -page docs/conformance.md

clean: # remove what was built; ./data stays
	rm -rf bin out
