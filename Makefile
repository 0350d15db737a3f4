# make demo and make test install what they need by themselves and say so.
VERSION ?= $(shell git describe --always --dirty 2>/dev/null || echo dev)
LDFLAGS  = -s -w -X main.version=$(VERSION)
GO      ?= go

.PHONY: all build deps demo bench soak test check fmt clean crash console test-browser test-puppetserver test-systemd

all: build

# dayfly-guest is the local region's own: what AWS's agents are to an instance.
# dayfly-agent has no version stamped in: it is part of every image's inputs, and
# the same agent must give the same image.
build:
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o bin/ ./cmd/dayfly ./cmd/dayfly-autosign ./cmd/dayfly-guest
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags '-s -w' -o bin/ ./cmd/dayfly-agent ./cmd/dayfly-probe

# Debian packages that the local region and the tests use.
deps:
	scripts/deps.sh

# The main job with real parts, on this machine; DEMO_INSTANCES, DEMO_SUITES;
# DEMO_PUPPET=code bakes without the Puppet server that it starts, and takes minutes less.
demo: deps build
	$(GO) run -buildvcs=false ./demo

# Dayfly beside its peers, into build/bench.json; ROWS=launch-45,teardown-45 for
# some rows, RUNS=5 for more runs. docs/bench.md says how to read it.
bench: build
	scripts/deps.sh bench
	ROWS='$(ROWS)' RUNS='$(RUNS)' $(GO) run -buildvcs=false ./bench

# Everything, as root where it can be.
test: deps build
	scripts/test.sh

# A server killed before and after every call by which it changes the cloud;
# build/crash.json has the figures. EVERY=15 takes every fifteenth point. First with
# simulated instances, then, as root, at twelve points with real ones.
crash: build
	$(GO) build -buildvcs=false -o build/crash ./crash
	build/crash -every $(or $(EVERY),1)
	[ "$$(id -u)" != 0 ] || { scripts/deps.sh && build/crash -real -with build/crash.json; }

# What production lives through, in minutes: rollouts, kills, lost zones under a
# constant load, into build/soak.json and build/soak.html. SOAK_MINUTES (30),
# SOAK_INSTANCES (45), SOAK_RATE (100 a second), SOAK_SEED, SOAK_LAUNCHES (0:
# as many as there are; 10000 takes half an hour more).
soak: build
	$(GO) build -buildvcs=false -o build/soak ./soak
	build/soak

# The console's pages, out of web/ into internal/web/dist, which is committed:
# nobody needs node to build Dayfly.
console:
	scripts/console.sh

# The console in Debian's Chromium on a real server; screenshots into build/console.
test-browser: build
	scripts/console.sh check
	go test -count=1 -v ./e2e/browser

# Debian's real Puppet server as an instance, and bakes against it: ten minutes
# or more, so not part of make test.
test-puppetserver: build
	scripts/deps.sh test
	scripts/deps.sh puppetdb
	DAYFLY_TEST_PUPPETSERVER=1 go test -count=1 -v -run TestPuppetDB ./internal/autosign
	DAYFLY_TEST_PUPPETSERVER=1 DAYFLY_TEST_BASEIMAGES=$${DAYFLY_TEST_BASEIMAGES:-/var/cache/dayfly} go test -count=1 -v -timeout 40m ./e2e/puppetserver

# The server's unit under a real systemd, in a container; three minutes.
test-systemd: build
	scripts/systemd.sh

# Fast, for every commit.
check:
	scripts/check.sh

clean:
	rm -rf bin build
