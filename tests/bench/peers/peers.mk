# Programs of `make bench-peers`, included by the Makefile. They are built for AVX2 and not for more, so that their few loops do
# not break a comparison that is restricted to AVX2; the peers' own kernels choose what the CPU has.
PEERS := $(BUILD)/tests/bench/peers
PEERS_COMMON := $(PEERS)/child.o $(PEERS)/lower.o $(LIBMODELS) $(LIBHWGQ)
ifeq ($(ARCH),x86_64)
$(PEERS)/%.o: ISA_FLAGS := -mavx2 -mfma
endif

peers: peers-deps $(PEERS)/make_model $(PEERS)/write_onnx $(PEERS)/engine_hwgq $(PEERS)/engine_blas $(PEERS)/engine_onednn
.PHONY: peers peers-deps
peers-deps:
	@echo '#include <dnnl.h>' | $(CC) -E - >/dev/null 2>&1 || \
	  { echo 'bench-peers needs oneDNN 2.x: apt-get install libdnnl-dev (and nodejs, npm for ONNX Runtime)'; exit 1; }
$(PEERS)/make_model: $(PEERS)/make_model.o $(LIBMODELS) $(LIBHWGQ)
$(PEERS)/write_onnx: $(PEERS)/write_onnx.o $(PEERS)/onnx_proto.o $(PEERS)/lower.o $(LIBMODELS) $(LIBHWGQ)
$(PEERS)/engine_hwgq $(PEERS)/engine_blas: $(PEERS)/engine_%: $(PEERS)/engine_%.o $(PEERS_COMMON)
$(PEERS)/engine_onednn: $(PEERS)/engine_onednn.o $(PEERS)/onednn_node.o $(PEERS_COMMON)
$(PEERS)/engine_onednn: PEER_LIBS := -ldnnl
$(PEERS)/make_model $(PEERS)/write_onnx $(PEERS)/engine_hwgq $(PEERS)/engine_blas $(PEERS)/engine_onednn:
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS) $^ -o $@ $(MODELS_LIBS) $(ENGINE_LIBS) $(PEER_LIBS)
