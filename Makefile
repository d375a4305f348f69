# SPDX-License-Identifier: GPL-2.0-only
#
# make demo   the whole thing on three virtual machines: a node hangs, with and without o2fence
# make test   all tests, those in virtual machines included
# make help   the rest

RELEASE  ?= $(shell scripts/deps kernel 2>/dev/null || uname -r)
KDIR     ?= /lib/modules/$(RELEASE)/build
MODULES   = build/modules/$(RELEASE)
VERSION   = $(shell git describe --tags --always 2>/dev/null || echo unknown)
DESTDIR  ?=
sbindir   = $(DESTDIR)/usr/sbin
sharedir  = $(DESTDIR)/usr/share
GOFUMPT   = go run mvdan.cc/gofumpt@v0.12.0
STATIC    = go run honnef.co/go/tools/cmd/staticcheck@v0.8.2
MISSED   ?= 5
# Virtual machines boot the kernel that the modules were built for, whatever else is installed.
export O2FENCE_KERNEL = $(RELEASE)

.PHONY: all help deps modules programs demo test short conformance bench-methods bench-upcall bench-pressure style check loc install clean

all: modules programs

help:
	@echo 'make             modules and programs, into build/'
	@echo 'make deps        install the Debian packages that are missing (root)'
	@echo 'make demo        the demonstration; MISSED=3 notices a dead node sooner'
	@echo 'make test        all tests; RELEASE=... on another kernel that is installed, with its headers'
	@echo 'make short       the tests without virtual machines'
	@echo 'make conformance     docs/conformance.md: what methods, and others, say of devices that fail'
	@echo 'make bench-methods   fence methods against the agents of Debian, into build/bench/'
	@echo 'make bench-upcall    what calling a fence method costs, beside what others do'
	@echo 'make bench-pressure  fences while memory reclaim waits for the fence, beside what others do'
	@echo 'make style       formatters, vet, staticcheck, checkpatch, sparse'
	@echo 'make loc         count the kernel code'
	@echo 'make install     onto this machine, or below DESTDIR'

deps:
	@scripts/deps

# The sources are copied, so that several kernels can be built for and nothing is left in kmod/.
modules:
	@mkdir -p $(MODULES)
	@cp -rup Kbuild kmod $(MODULES)/
	@go run ./scripts/ynl docs/netlink/o2fence.yaml $(MODULES)/kmod
	$(MAKE) -C $(KDIR) M=$(CURDIR)/$(MODULES) $(KFLAGS) modules
	@mkdir -p build/ko && ln -sfn ../modules/$(RELEASE)/kmod build/ko/$(RELEASE)

programs:
	@mkdir -p build/bin
	CGO_ENABLED=0 go build -trimpath -o build/bin/ ./cmd/... ./test/workload

demo: deps modules programs
	go run ./test/demo -missed $(MISSED)

bench-upcall: deps modules programs
	@scripts/deps bench
	go run ./test/bench/upcall

bench-pressure: deps modules programs
	@scripts/deps bench
	go run ./test/bench/pressure

test: deps modules programs
	@scripts/deps test
	go test -p 1 -timeout 45m ./...

short: programs
	go test -short ./...

conformance: deps
	@scripts/deps test
	go run ./test/conformance $(METHODS)

bench-methods:
	@scripts/deps bench
	go run ./test/bench/methods -json build/bench/methods.json

style: loc
	@scripts/deps style
	@test -z "$$($(GOFUMPT) -l $$(git ls-files '*.go'))" || { $(GOFUMPT) -l $$(git ls-files '*.go'); exit 1; }
	go vet ./...
	$(STATIC) ./...
	@touch kmod/*.c
	$(MAKE) --no-print-directory modules KFLAGS='W=1 C=1 CF=-D__CHECK_ENDIAN__' 2>&1 | scripts/quiet
	scripts/checkpatch

loc:
	@scripts/loc

install: all
	scripts/install '$(DESTDIR)' '$(RELEASE)' '$(VERSION)'

clean:
	rm -rf build
