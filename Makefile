# hwgqd. Two commands do everything:
#   make run    install what is missing, build, serve the shipped networks on port 8080 (HWGQ_LISTEN=ADDRESS:PORT)
#   make test   install what is missing, build, run every test
# Others: make (optimized build), asan, tsan, arm64 (cross-compiled), fuzz, bench, install (PREFIX, LIBDIR, MANDIR, DESTDIR), clean,
# deps, format, deb, help. V=1 shows every command.
#
# New source files are found by wildcard: nothing here has to be edited to add one. Files whose names end in _avx2 or _avx512
# are compiled with those instruction sets; everything else for the baseline of the architecture.

PREFIX ?= /usr/local
DESTDIR ?=
ifeq ($(origin CC),default)
CC := gcc
endif
BUILD ?= build/release
HWGQ_LISTEN ?= 127.0.0.1:8080

CFLAGS ?= -O3 -g
# SANITIZE: address,undefined or thread (set by the asan and tsan targets)
SANITIZE ?=
WARNINGS := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla
# -ffp-contract=off: the same floats on every machine (a fused multiply-add only where the code asks for it)
override CFLAGS += -std=c11 -D_GNU_SOURCE -I. $(WARNINGS) -ffp-contract=off -fno-math-errno -pthread -fPIC -MMD -MP \
	-fstack-protector-strong
ifneq ($(SANITIZE),)
override CFLAGS += -fsanitize=$(SANITIZE) -fno-omit-frame-pointer -fno-sanitize-recover=undefined
override LDFLAGS += -fsanitize=$(SANITIZE)
else
override CFLAGS += -D_FORTIFY_SOURCE=2
endif
override LDFLAGS += -pthread -Wl,--as-needed,-z,relro,-z,now

ENGINE_LIBS := -ljansson -lxxhash -lm
MODELS_LIBS := -ljpeg -lspng -lwebp -larchive -ldl
SERVER_LIBS := -lmicrohttpd -lgnutls -lseccomp

ENGINE_SRC := $(wildcard engine/*.c engine/kernels/*.c)
MODELS_SRC := $(filter-out models/tool/%,$(wildcard models/*/*.c))
TOOL_SRC := $(wildcard models/tool/*.c)
SERVER_SRC := $(filter-out server/main.c,$(wildcard server/*.c))
UNIT_SRC := $(wildcard tests/unit/test_*.c)
FUZZ_SRC := $(wildcard tests/fuzz/fuzz_*.c)
BENCH_SRC := $(wildcard tests/bench/bench_*.c)
SUPPORT_SRC := $(wildcard tests/support/*.c)
SCORES_SRC := $(wildcard tests/scores/*.c)

# say TEXT: a short line instead of the whole command
ifeq ($(V),)
Q := @
say = @printf '%-5s %s\n' $(1) $(2)
endif

object = $(patsubst %.c,$(BUILD)/%.o,$(1))
UNIT_BIN := $(patsubst %.c,$(BUILD)/%,$(UNIT_SRC))
FUZZ_BIN := $(patsubst %.c,$(BUILD)/%,$(FUZZ_SRC))
BENCH_BIN := $(patsubst %.c,$(BUILD)/%,$(BENCH_SRC))
SCORES_BIN := $(patsubst %.c,$(BUILD)/%,$(SCORES_SRC))
LIBHWGQ := $(BUILD)/libhwgq.a
# the number goes up when the interface in engine/hwgq.h changes incompatibly
SONAME := libhwgq.so.0
LIBHWGQ_SO := $(BUILD)/$(SONAME)
VERSION := $(shell sed -n 's/^\#define HWGQ_VERSION "\(.*\)"/\1/p' engine/hwgq.h)
LIBMODELS := $(BUILD)/libmodels.a
LIBSERVER := $(BUILD)/libserver.a


.PHONY: all programs tests units run test deps test-deps asan tsan arm64 fuzz bench bench-peers install uninstall clean format help deb test-deb test-container
.SECONDARY:
.DELETE_ON_ERROR:

all: programs
programs: $(BUILD)/hwgqd $(BUILD)/hwgq
tests: programs units $(FUZZ_BIN) $(SCORES_BIN)
units: $(UNIT_BIN)

help:
	@sed -n '2,6p' Makefile | sed 's/^# \{0,1\}//'

# ---- dependencies ------------------------------------------------------------------------------------------------------
deps:
	@./config/install-packages.sh build

test-deps:
	@./config/install-packages.sh build test arm64

# ---- build -------------------------------------------------------------------------------------------------------------
ARCH := $(shell $(CC) -dumpmachine | cut -d- -f1)
ifeq ($(ARCH),x86_64)
$(BUILD)/%_avx2.o: ISA_FLAGS := -mavx2 -mfma -mbmi -mbmi2 -mpopcnt
$(BUILD)/%_avx512.o: ISA_FLAGS := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vpopcntdq -mavx512vbmi2 -mavx2 -mfma -mbmi -mbmi2 -mpopcnt \
	-mprefer-vector-width=512
$(BUILD)/%_avx512vbmi.o: ISA_FLAGS := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vbmi -mavx512vpopcntdq -mavx2 -mfma -mbmi \
	-mbmi2 -mpopcnt -mprefer-vector-width=512
$(BUILD)/%_avx512vnni.o: ISA_FLAGS := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mavx2 -mfma -mbmi -mbmi2 -mpopcnt \
	-mprefer-vector-width=512
$(BUILD)/%_avx512bf16.o: ISA_FLAGS := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mavx512bf16 -mavx2 -mfma -mbmi -mbmi2 \
	-mpopcnt -mprefer-vector-width=512
$(BUILD)/%_avxvnni.o: ISA_FLAGS := -mavx2 -mavxvnni -mfma -mbmi -mbmi2 -mpopcnt
endif
ifeq ($(ARCH),aarch64)
# gcc 12 stops with an internal error where it vectorizes fmax over floats that are widened to double, as tests like to do.
$(BUILD)/tests/%.o: ISA_FLAGS := -fno-tree-vectorize
endif

# Objects depend on the compiler and its flags: a change of either rebuilds.
FLAGS_FILE := $(BUILD)/flags
FLAGS_TEXT := $(CC) $(CFLAGS) $(LDFLAGS)
ifneq ($(FLAGS_TEXT),$(shell cat $(FLAGS_FILE) 2>/dev/null))
$(shell mkdir -p $(BUILD) && printf '%s' '$(FLAGS_TEXT)' > $(FLAGS_FILE))
endif

$(BUILD)/%.o: %.c $(FLAGS_FILE)
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(CC) $(CFLAGS) $(ISA_FLAGS) -c $< -o $@

# The page's files, compiled in with .incbin (which -MMD does not see) as they are and packed
PAGE := $(wildcard server/page/*)
$(BUILD)/server/route_page.o: ISA_FLAGS := -DPAGE_PACKED='"$(BUILD)/server/page"'
$(BUILD)/server/route_page.o: $(PAGE) $(PAGE:%=$(BUILD)/%.gz)
$(BUILD)/server/page/%.gz: server/page/%
	@mkdir -p $(@D)
	$(Q)gzip -9nc $< > $@

$(LIBHWGQ): $(call object,$(ENGINE_SRC))
	$(call say,AR,$@)
	@rm -f $@
	$(Q)$(AR) rcs $@ $^
$(LIBHWGQ_SO): $(call object,$(ENGINE_SRC)) engine/hwgq.map
	$(call say,LINK,$@)
	$(Q)$(CC) -shared $(LDFLAGS) -Wl,-soname,$(SONAME),--version-script=engine/hwgq.map,-Bsymbolic-functions,--no-undefined \
	  $(filter %.o,$^) -o $@ $(ENGINE_LIBS)
$(LIBMODELS): $(call object,$(MODELS_SRC))
	$(call say,AR,$@)
	@rm -f $@
	$(Q)$(AR) rcs $@ $^
$(LIBSERVER): $(call object,$(SERVER_SRC))
	$(call say,AR,$@)
	@rm -f $@
	$(Q)$(AR) rcs $@ $^

$(BUILD)/hwgqd: $(BUILD)/server/main.o $(LIBSERVER) $(LIBMODELS) $(LIBHWGQ)
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS) $^ -o $@ $(SERVER_LIBS) $(MODELS_LIBS) $(ENGINE_LIBS)
$(BUILD)/hwgq: $(call object,$(TOOL_SRC)) $(LIBMODELS) $(LIBHWGQ)
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS) $^ -o $@ $(MODELS_LIBS) $(ENGINE_LIBS)
$(BUILD)/tests/unit/%: $(BUILD)/tests/unit/%.o $(call object,$(SUPPORT_SRC)) $(LIBSERVER) $(LIBMODELS) $(LIBHWGQ)
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS) $^ -o $@ $(SERVER_LIBS) $(MODELS_LIBS) $(ENGINE_LIBS) `pkg-config --libs check`
$(BUILD)/tests/fuzz/%: $(BUILD)/tests/fuzz/%.o $(call object,$(SUPPORT_SRC)) $(LIBSERVER) $(LIBMODELS) $(LIBHWGQ)
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS) $^ -o $@ $(SERVER_LIBS) $(MODELS_LIBS) $(ENGINE_LIBS) `pkg-config --libs check`
$(BUILD)/tests/scores/%: $(BUILD)/tests/scores/%.o $(call object,tests/support/files.c) $(LIBMODELS) $(LIBHWGQ)
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS) $^ -o $@ $(MODELS_LIBS) $(ENGINE_LIBS)
$(BUILD)/tests/bench/%: $(BUILD)/tests/bench/%.o $(LIBMODELS) $(LIBHWGQ)
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS) $^ -o $@ $(MODELS_LIBS) $(ENGINE_LIBS)

# fuzz_X with libFuzzer's loop in the place of tests/support/fuzz.c (tests/fuzz/README.md)
LIBFUZZER = $(shell $(CC) -print-runtime-dir)/libclang_rt.fuzzer_no_main-$(ARCH).a
$(BUILD)/fuzz_%: $(BUILD)/tests/fuzz/fuzz_%.o $(BUILD)/tests/fuzz/libfuzzer.o \
		$(call object,$(filter-out %/fuzz.c,$(SUPPORT_SRC))) $(LIBSERVER) $(LIBMODELS) $(LIBHWGQ)
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS) $^ -o $@ $(SERVER_LIBS) $(MODELS_LIBS) $(ENGINE_LIBS) $(LIBFUZZER) -lstdc++

-include $(shell test -d $(BUILD) && find $(BUILD) -name '*.d')

# -g1: the lines of a report, and a fifth less to compile
asan:
	$(MAKE) programs tests BUILD=build/asan SANITIZE=address,undefined CFLAGS='-O1 -g1'
TSAN ?= programs tests
tsan:
	$(MAKE) $(TSAN) BUILD=build/tsan SANITIZE=thread CFLAGS='-O1 -g1'

# Programs and tests for aarch64, with Debian's cross compiler; tests/arm64/emulate.sh runs them.
ARM64 ?= programs tests
ARM64_ROOT := build/arm64-root
ARM64_LIB := $(ARM64_ROOT)/usr/lib/aarch64-linux-gnu
arm64:
	@./tests/arm64/root.sh $(ARM64_ROOT)
	$(MAKE) $(ARM64) BUILD=build/arm64 CC=aarch64-linux-gnu-gcc AR=aarch64-linux-gnu-ar \
	  CFLAGS='-O3 -isystem $(ARM64_ROOT)/usr/include -isystem $(ARM64_ROOT)/usr/include/aarch64-linux-gnu' \
	  LDFLAGS='-L$(ARM64_LIB) -Wl,-rpath-link,$(ARM64_LIB):$(ARM64_ROOT)/lib/aarch64-linux-gnu'

FUZZ ?= $(notdir $(FUZZ_SRC:.c=))
fuzz:
	$(MAKE) $(addprefix build/fuzz/,$(FUZZ)) BUILD=build/fuzz CC=clang SANITIZE=fuzzer-no-link,address,undefined \
	  CFLAGS='-O1 -g'

# ---- run and test ------------------------------------------------------------------------------------------------------
run: deps
	@$(MAKE) --no-print-directory programs
	$(BUILD)/hwgqd --config config/hwgqd.json --listen $(HWGQ_LISTEN)

test: test-deps
	@./tests/run.sh

bench:
	$(MAKE) programs $(BENCH_BIN)
	@./tests/bench/run.sh $(BUILD)

-include tests/bench/peers/peers.mk
bench-peers:
	$(MAKE) peers
	@python3 tests/bench/peers/compare.py $(PEERS) $(BENCH_PEERS)

test-container: test-deps
	@python3 -B tests/container/run.py

# ---- install -----------------------------------------------------------------------------------------------------------
D = $(DESTDIR)$(PREFIX)
LIBDIR ?= $(PREFIX)/lib
MANDIR ?= $(PREFIX)/share/man
install: programs $(LIBHWGQ_SO)
	install -d $(D)/bin $(D)/include $(DESTDIR)$(LIBDIR)/pkgconfig $(D)/share/hwgqd/config/prometheus $(D)/share/hwgqd/config/grafana \
	  $(D)/share/hwgqd/models/zoo $(D)/share/hwgqd/examples $(D)/share/bash-completion/completions \
	  $(addprefix $(DESTDIR)$(MANDIR)/,man1 man5 man8)
	install -m 755 $(BUILD)/hwgqd $(BUILD)/hwgq $(D)/bin
	install -m 644 engine/hwgq.h $(D)/include
	install -m 644 $(LIBHWGQ) $(LIBHWGQ_SO) $(DESTDIR)$(LIBDIR)
	ln -sf $(SONAME) $(DESTDIR)$(LIBDIR)/libhwgq.so
	sed 's|@PREFIX@|$(PREFIX)|; s|@VERSION@|$(VERSION)|; s|^libdir=.*|libdir=$(LIBDIR)|' config/hwgq.pc.in > $(DESTDIR)$(LIBDIR)/pkgconfig/hwgq.pc
	chmod 644 $(DESTDIR)$(LIBDIR)/pkgconfig/hwgq.pc
	install -m 644 config/man/hwgq.1 $(DESTDIR)$(MANDIR)/man1
	install -m 644 config/man/hwgqd.json.5 $(DESTDIR)$(MANDIR)/man5
	install -m 644 config/man/hwgqd.8 $(DESTDIR)$(MANDIR)/man8
	install -m 644 config/completion/hwgqd.bash $(D)/share/bash-completion/completions/hwgqd
	install -m 644 config/completion/hwgq.bash $(D)/share/bash-completion/completions/hwgq
	install -m 644 config/*.json config/prometheus.yml config/hwgqd.socket config/nginx.conf config/haproxy.cfg $(D)/share/hwgqd/config
	sed 's|/usr/local|$(PREFIX)|g' config/hwgqd.service > $(D)/share/hwgqd/config/hwgqd.service
	chmod 644 $(D)/share/hwgqd/config/hwgqd.service
	install -m 644 config/prometheus/* $(D)/share/hwgqd/config/prometheus
	install -m 644 config/grafana/* $(D)/share/hwgqd/config/grafana
	install -m 644 engine/examples/*.c $(D)/share/hwgqd/examples
	install -m 644 LICENSE $(D)/share/hwgqd
	install -m 644 models/zoo/*.hwgq models/zoo/*.md models/zoo/*.labels $(D)/share/hwgqd/models/zoo

uninstall:
	rm -f $(D)/bin/hwgqd $(D)/bin/hwgq $(D)/include/hwgq.h $(addprefix $(DESTDIR)$(LIBDIR)/,libhwgq.a libhwgq.so $(SONAME) pkgconfig/hwgq.pc) \
	  $(addprefix $(D)/share/bash-completion/completions/,hwgqd hwgq) \
	  $(addprefix $(DESTDIR)$(MANDIR)/,man1/hwgq.1 man5/hwgqd.json.5 man8/hwgqd.8)
	rm -rf $(D)/share/hwgqd

# Debian source and binary packages in build/deb: config/debian becomes debian/ of a copy of the tree
DEB := build/deb/hwgqd-$(VERSION)
deb:
	@command -v dh >/dev/null || { echo "make deb needs the packages debhelper and fakeroot" >&2; exit 1; }
	rm -rf build/deb
	mkdir -p $(DEB)
	tar --exclude=./build --exclude=./.git --exclude=./.ci --exclude=__pycache__ -cf - . | tar -xf - -C $(DEB)
	mv $(DEB)/config/debian $(DEB)/debian
	cd $(DEB) && env -u MAKEFLAGS -u MAKELEVEL -u MFLAGS -u CC -u CFLAGS dpkg-buildpackage -us -uc

test-deb: test-deps
	@./tests/deploy/deb.sh

format:
	clang-format -i $$(git ls-files -co --exclude-standard '*.c' '*.h')

clean:
	rm -rf build
