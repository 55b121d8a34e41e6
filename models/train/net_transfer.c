/* Between a network in training and a network of the engine: parameters there and back. */
#include <string.h>

#include "models/train/net.h"

static void export_weights(const struct net_layer *l, struct hwgq_layer *layer) {
  const struct conv *conv = &l->conv;
  int positions = conv->kernel_height * conv->kernel_width;
  size_t row_bytes = ((size_t)conv->taps + 7) / 8;
  if (conv->binary) memset(layer->weight_bits, 0, row_bytes * (size_t)l->out.channels);
  for (int o = 0; o < l->out.channels; o++) {
    for (int c = 0; c < l->in.channels; c++) {
      for (int p = 0; p < positions; p++) {
        float w = conv->weight[((size_t)p * (size_t)l->in.channels + (size_t)c) * (size_t)l->out.channels + (size_t)o];
        size_t tap = (size_t)c * (size_t)positions + (size_t)p;
        if (!conv->binary)
          layer->weight[(size_t)o * (size_t)conv->taps + tap] = w;
        else if (w >= 0.0f)
          layer->weight_bits[(size_t)o * row_bytes + tap / 8] |= (uint8_t)(1u << tap % 8);
      }
    }
    if (layer->has_alpha) layer->alpha[o] = conv->alpha[o];
    if (layer->has_bias) layer->bias[o] = conv->bias[o];
  }
}

void net_export(const struct net *net, struct hwgq_network *network) {
  for (int i = 0; i < net->layer_count; i++) {
    const struct net_layer *l = &net->layers[i];
    struct hwgq_layer *layer = &network->layers[i];
    size_t bytes = sizeof(float) * (size_t)l->out.channels;
    if (l->op == HWGQ_CONV2D || l->op == HWGQ_LINEAR) export_weights(l, layer);
    if (l->op == HWGQ_BATCH_NORM) {
      memcpy(layer->mean, l->mean, bytes);
      memcpy(layer->variance, l->variance, bytes);
    }
    if (l->op == HWGQ_SCALE) {
      memcpy(layer->gamma, l->gamma, bytes);
      if (layer->has_bias) memcpy(layer->beta, l->beta, bytes);
    }
  }
}

/* ---- back --------------------------------------------------------------------------------------------------------------- */

static bool has_weights(enum hwgq_op op) {
  return op == HWGQ_CONV2D || op == HWGQ_LINEAR;
}

static bool same_shape(struct hwgq_shape a, struct hwgq_shape b) {
  return a.channels == b.channels && a.height == b.height && a.width == b.width;
}

/* Binary weights come back as +-alpha: their signs and, averaged, the same alpha. */
static void import_weights(struct net_layer *l, const struct hwgq_layer *layer) {
  struct conv *conv = &l->conv;
  int positions = conv->kernel_height * conv->kernel_width;
  size_t row_bytes = ((size_t)conv->taps + 7) / 8;
  for (int o = 0; o < l->out.channels; o++) {
    float alpha = layer->has_alpha ? layer->alpha[o] : 1.0f;
    for (int c = 0; c < l->in.channels; c++) {
      for (int p = 0; p < positions; p++) {
        size_t tap = (size_t)c * (size_t)positions + (size_t)p;
        float w = 0;
        if (!layer->binary)
          w = layer->weight[(size_t)o * (size_t)conv->taps + tap];
        else
          w = layer->weight_bits[(size_t)o * row_bytes + tap / 8] >> tap % 8 & 1 ? alpha : -alpha;
        conv->weight[((size_t)p * (size_t)l->in.channels + (size_t)c) * (size_t)l->out.channels + (size_t)o] = w;
      }
    }
    if (conv->has_bias) conv->bias[o] = layer->has_bias ? layer->bias[o] : 0.0f;
  }
}

static void import_layer(struct net_layer *l, const struct hwgq_layer *layer) {
  size_t bytes = sizeof(float) * (size_t)l->out.channels;
  if (has_weights(l->op)) import_weights(l, layer);
  if (l->op == HWGQ_BATCH_NORM) {
    memcpy(l->mean, layer->mean, bytes);
    memcpy(l->variance, layer->variance, bytes);
  }
  if (l->op == HWGQ_SCALE) {
    memcpy(l->gamma, layer->gamma, bytes);
    if (l->layer->has_bias && layer->has_bias) memcpy(l->beta, layer->beta, bytes);
  }
}

/* Whether the layers' parameters have the same shapes: images may be of another size, but for linear layers. */
static bool fits(const struct net_layer *l, const struct hwgq_network *network, const struct hwgq_layer *layer) {
  if (layer->op != l->op || layer->output.channels != l->out.channels || layer->groups != l->layer->groups) return false;
  if (!has_weights(l->op)) return true;
  struct hwgq_shape in = hwgq_network_input_shape(network, layer, 0);
  return in.channels == l->in.channels && layer->kernel_height == l->layer->kernel_height &&
         layer->kernel_width == l->layer->kernel_width && (l->op != HWGQ_LINEAR || same_shape(in, l->in));
}

bool net_is_classifier(const struct net *net, const struct net_layer *layer) {
  for (int i = net->layer_count - 1; i >= 0; i--)
    if (has_weights(net->layers[i].op)) return layer == &net->layers[i];
  return false;
}

int64_t net_clamp_latent(struct net *net) {
  int64_t beyond = 0;
  for (int i = 0; i < net->parameter_count; i++) {
    const struct net_parameter *p = &net->parameters[i];
    if (!p->latent) continue;
    for (size_t k = 0; k < p->count; k++) beyond += p->value[k] < -1.0f || p->value[k] > 1.0f;
    net->kernels->clamp(p->value, p->count, -1.0f, 1.0f);
  }
  net_prepare(net);
  return beyond;
}

enum hwgq_status net_import(struct net *net, const struct hwgq_network *network, int *taken, struct hwgq_error *error) {
  *taken = 0;
  /* Everything is checked before anything is changed. */
  for (int copy = 0; copy <= 1; copy++) {
    for (int i = 0; i < net->layer_count; i++) {
      struct net_layer *l = &net->layers[i];
      if (!has_weights(l->op) && l->op != HWGQ_BATCH_NORM && l->op != HWGQ_SCALE) continue;
      int index = hwgq_network_find(network, l->layer->name);
      const struct hwgq_layer *layer = index >= 0 ? &network->layers[index] : NULL;
      bool good = layer != NULL && fits(l, network, layer);
      bool needed = !net_is_classifier(net, l) && !(layer == NULL && l->op == HWGQ_SCALE);
      if (!good && needed)
        return hwgq_fail(error, HWGQ_ERROR_INVALID, "network %s has %s layer %s %s: begin with the same network and width",
                         network->name, layer != NULL ? "another" : "no", l->layer->name,
                         layer != NULL ? "than this one" : "as this one has");
      if (!copy || !good) continue;
      import_layer(l, layer);
      ++*taken;
    }
  }
  net_prepare(net);
  return HWGQ_OK;
}
