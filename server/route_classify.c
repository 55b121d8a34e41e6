/* POST /classify and /v1/models/{name}/classify. */
#include "server/clock.h"
#include "server/routes.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

static bool starts_with(const char *text, const char *prefix) {
  return strncasecmp(text, prefix, strlen(prefix)) == 0;
}

/* Whether a Content-Type is `type`, whatever its parameters. */
static bool is_type(const char *content_type, const char *type) {
  size_t length = strlen(type);
  return starts_with(content_type, type) && (!content_type[length] || strchr("; \t", content_type[length]));
}

/* top_k as a number of 1 to 65536; 0 when it is not. */
static int parse_top_k(const char *text, size_t length) {
  int value = 0;
  if (length == 0 || length > 5) return 0;
  for (size_t i = 0; i < length; i++) {
    if (text[i] < '0' || text[i] > '9') return 0;
    value = value * 10 + (text[i] - '0');
  }
  return value <= CLASSIFY_MAX_TOP_K ? value : 0;
}

static bool set_top_k(struct request *request, const char *text, size_t length) {
  request->top_k = parse_top_k(text, length);
  if (request->top_k) return true;
  reply_error(&request->reply, 400, "bad_top_k", request->id, "top_k must be a whole number from 1 to %d.", CLASSIFY_MAX_TOP_K);
  return false;
}

static bool set_model(struct request *request, const char *name) {
  registry_release(request->model);
  request->model = registry_acquire(request->server->registry, name);
  if (request->model) return true;
  route_no_model(request, name ? name : "");
  return false;
}

static bool check_type(struct request *request) {
  const char *type = request_header(request, "Content-Type");
  char boundary[MULTIPART_MAX_BOUNDARY + 1];
  struct hwgq_error error;
  if (!type || starts_with(type, "image/") || is_type(type, "application/octet-stream") ||
      is_type(type, "application/x-www-form-urlencoded")) {
    return true;
  }
  if (is_type(type, "multipart/form-data")) {
    if (!multipart_boundary(type, boundary, &error)) return true;
    reply_error(&request->reply, 400, "bad_multipart", request->id, "%s", error.message);
    return false;
  }
  reply_error(
      &request->reply, 415, "unsupported_media_type", request->id,
      "Content-Type %.100s is not an image. Send a form with an image field (curl -F image=@cat.jpg URL), or the image's "
      "bytes with an image/* or application/octet-stream type.",
      type);
  return false;
}

static void check_headers(struct request *request) {
  const char *model = request_query(request, "model"), *top_k = request_query(request, "top_k");
  uint64_t limit = (uint64_t)request->server->config->max_body_bytes;
  if (route_not_loaded(request)) return;
  if (request->model_name[0] && model && strcmp(model, request->model_name) != 0) {
    reply_error(&request->reply, 400, "two_models", request->id, "The path says network '%s', the query '%.100s'. Name one.",
                request->model_name, model);
    return;
  }
  const char *name = request->model_name[0] ? request->model_name : model;
  if (request->model_version[0]) {
    request->model = route_acquire(request);
    if (!request->model) return;
  } else if (!set_model(request, name)) {
    return;
  }
  if (name) strcpy(request->model_name, request->model->name);
  if (top_k && !set_top_k(request, top_k, strlen(top_k))) return;
  if (!check_type(request)) return;
  if (request->content_length > limit) {
    reply_error(&request->reply, 413, "body_too_large", request->id,
                "The request body is larger than %llu bytes. Send a smaller image, or raise max_body_bytes.",
                (unsigned long long)limit);
  }
}

static bool is_image_field(const char *name) {
  return strcmp(name, "image") == 0 || strcmp(name, "file") == 0 || strcmp(name, "data") == 0;
}

/* A text field of a form that stands for a query parameter; the query itself wins. */
static bool take_text_field(struct request *request, const struct multipart_part *part) {
  if (strcmp(part->name, "top_k") == 0 && !request->top_k) {
    return set_top_k(request, (const char *)part->data, part->length);
  }
  if (strcmp(part->name, "model") == 0 && !request->model_name[0]) {
    char name[CONFIG_MAX_NAME + 1] = "";
    if (part->length <= CONFIG_MAX_NAME) memcpy(name, part->data, part->length);
    return set_model(request, name);
  }
  return true;
}

static bool too_many_images(struct request *request) {
  reply_error(&request->reply, 413, "too_many_images", request->id,
              "One request may have %lld images. Send several requests, or raise max_images.",
              (long long)request->server->config->max_images);
  return false;
}

static bool collect_images(struct request *request, int part_count) {
  int64_t limit = request->server->config->max_images;
  for (int i = 0; i < part_count; i++) {
    const struct multipart_part *part = &request->parts[i];
    if (!is_image_field(part->name)) {
      if (!take_text_field(request, part)) return false;
      continue;
    }
    if (request->image_count == limit) return too_many_images(request);
    request->images[request->image_count++] = (struct request_image){.bytes = part->data, .length = part->length};
  }
  if (request->image_count == 0) {
    reply_error(&request->reply, 400, "no_image", request->id,
                "The form has no field called image, file or data%s%.64s%s. Send one: curl -F image=@cat.jpg URL",
                part_count ? ", but '" : "", part_count ? request->parts[0].name : "", part_count ? "'" : "");
    return false;
  }
  request->several = request->image_count > 1;
  return true;
}

static bool out_of_memory(struct request *request) {
  route_no_memory(request);
  return false;
}

static bool open_form(struct request *request, const char *type) {
  int capacity = (int)request->server->config->max_images + REQUEST_OTHER_PARTS, count = 0;
  char boundary[MULTIPART_MAX_BOUNDARY + 1];
  struct hwgq_error error;
  request->parts = malloc((size_t)capacity * sizeof *request->parts);
  request->images = malloc((size_t)capacity * sizeof *request->images);
  if (!request->parts || !request->images) return out_of_memory(request);
  enum hwgq_status status = multipart_boundary(type, boundary, &error);
  if (!status) {
    status = multipart_parse(request->body, request->body_length, boundary, request->parts, capacity, &count, &error);
  }
  if (status == HWGQ_ERROR_LIMIT) { /* too many images, or other fields */
    if (collect_images(request, capacity))
      reply_error(&request->reply, 413, "too_many_parts", request->id, "%s.", error.message);
    return false;
  }
  if (status) {
    reply_error(&request->reply, 400, "bad_multipart", request->id, "%s.", error.message);
    return false;
  }
  return collect_images(request, count);
}

static bool open_body(struct request *request) {
  const char *type = request_header(request, "Content-Type");
  if (request->body_length == 0) {
    reply_error(&request->reply, 400, "empty_body", request->id,
                "The request has no body. Send an image: curl -F image=@cat.jpg URL");
    return false;
  }
  if (type && is_type(type, "multipart/form-data")) {
    if (!open_form(request, type)) return false;
  } else {
    /* curl --data-binary says x-www-form-urlencoded whatever the bytes are: believe the bytes. */
    if (type && is_type(type, "application/x-www-form-urlencoded") &&
        image_sniff(request->body, request->body_length) == IMAGE_UNKNOWN) {
      reply_error(&request->reply, 415, "unsupported_media_type", request->id,
                  "The body is form text, not an image. Send a form with an image field (curl -F image=@cat.jpg URL), or the "
                  "image's bytes (curl -H 'Content-Type: image/jpeg' --data-binary @cat.jpg URL).");
      return false;
    }
    request->images = malloc(sizeof *request->images);
    if (!request->images) return out_of_memory(request);
    request->images[0] = (struct request_image){.bytes = request->body, .length = request->body_length};
    request->image_count = 1;
  }
  if (!request->top_k) request->top_k = 5;
  request->timings = calloc((size_t)request->image_count, sizeof *request->timings);
  return request->timings ? true : out_of_memory(request);
}

struct problem {
  int status;
  const char *code;
};

static struct problem problem_of(enum hwgq_status status) {
  switch (status) {
  case HWGQ_ERROR_UNSUPPORTED:
    return (struct problem){415, "unsupported_image"};
  case HWGQ_ERROR_LIMIT:
    return (struct problem){422, "image_too_large"};
  case HWGQ_ERROR_MEMORY:
    return (struct problem){503, "out_of_memory"};
  default:
    return (struct problem){422, "undecodable_image"};
  }
}

static void write_result(const struct request *request, const struct classify_result *result, struct text *text) {
  text_puts(text, "\"predictions\":");
  classify_write_predictions(request->model->classifier->model, result->scores, request->top_k, text);
  text_puts(text, ",\"image\":");
  classify_write_image(&result->image, text);
}

static void write_problem(struct text *text, enum hwgq_status status, const struct hwgq_error *error) {
  text_printf(text, "\"error\":{\"code\":\"%s\",\"message\":", problem_of(status).code);
  text_json_string(text, error->message);
  text_puts(text, "}");
}

/* One image's part of the reply, until all are there. */
struct part {
  struct text text;
  bool good; /* classified: has its timings */
  bool late; /* has more pixels than its share: runs after the others, with what they have left */
};

/* What the images of one request share. The bound on their pixels is kept without regard to which worker comes first: each has
 * the same share of it, and those that need more get their turn, in order, when it is known what the others left. */
struct job {
  struct request *request;
  struct part *parts;         /* of the images */
  uint64_t share;             /* pixels */
  _Atomic uint64_t pixels;    /* that images had which were not late */
  bool gone;                  /* the client has closed its connection */
  _Atomic uint64_t decode_ns; /* taken of max_decode_ms; images that run at once see what was taken before them */
};

static uint64_t pixels_of(const struct classify_result *result) {
  return (uint64_t)result->image.width * (uint64_t)result->image.height;
}

/* Image `index`, of at most so many pixels. */
static enum hwgq_status classify_one(struct job *job, int index, uint64_t pixels, struct classify_scratch *scratch,
                                     struct classify_result *result, struct hwgq_error *error) {
  struct request *request = job->request;
  const struct request_image *image = &request->images[index];
  const struct config *config = request->server->config;
  uint64_t all = (uint64_t)config->max_decode_ms * CLOCK_MS, taken = atomic_load(&job->decode_ns);
  const struct image_limits limits = {.max_pixels = pixels,
                                      .max_scans = (int)config->max_scans,
                                      .deadline_ns = clock_now() + (taken < all ? all - taken : 0),
                                      .budget = &request->server->decoding,
                                      .needed = request_is_in_the_way,
                                      .context = (void *)(uintptr_t)request};
  enum hwgq_status status =
      classify_bytes(request->model->classifier, scratch, image->bytes, image->length, &limits, result, error);
  atomic_fetch_add(&job->decode_ns, result->decode_ns - result->waited_ns + result->preprocess_ns);
  atomic_fetch_add(&request->spent_ns, classify_spent_ns(result));
  return status;
}

static void keep(struct job *job, int index, enum hwgq_status status, const struct classify_result *result,
                 const struct hwgq_error *error, bool helper) {
  struct part *part = &job->parts[index];
  part->good = !status;
  if (status) {
    write_problem(&part->text, status, error);
    return;
  }
  write_result(job->request, result, &part->text);
  job->request->timings[index] = (struct stats_image){.decode_ns = result->decode_ns,
                                                      .preprocess_ns = result->preprocess_ns,
                                                      .inference_ns = result->inference_ns,
                                                      .shared = helper || result->helpers > 0};
}

/* By any worker. */
static bool run_part(void *context, int index, struct classify_scratch *scratch, bool helper) {
  struct job *job = context;
  struct classify_result result;
  struct hwgq_error error = {{0}};
  enum hwgq_status status = classify_one(job, index, job->share, scratch, &result, &error);
  if (status == HWGQ_ERROR_LIMIT && pixels_of(&result) > job->share) {
    job->parts[index].late = true;
  } else {
    atomic_fetch_add(&job->pixels, pixels_of(&result) <= job->share ? pixels_of(&result) : 0);
    keep(job, index, status, &result, &error, helper);
  }
  return true;
}

static bool nobody_waits(void *context) {
  struct job *job = context;
  job->gone = request_abandoned(job->request);
  return job->gone;
}

static void run_late(struct job *job, struct classify_scratch *scratch) {
  const uint64_t all = (uint64_t)job->request->server->config->max_pixels;
  uint64_t left = all - atomic_load(&job->pixels);
  for (int i = 0; i < job->request->image_count; i++) {
    struct classify_result result;
    struct hwgq_error error = {{0}};
    if (!job->parts[i].late) continue;
    if (nobody_waits(job)) return;
    enum hwgq_status status = classify_one(job, i, left, scratch, &result, &error);
    uint64_t pixels = pixels_of(&result);
    if (pixels > left && pixels <= all) {
      hwgq_fail(&error, status, "the images of this request have more than %llu pixels together: send this one by itself",
                (unsigned long long)all);
    }
    if (pixels <= left) left -= pixels;
    keep(job, i, status, &result, &error, false);
  }
}

/* The timings of what was classified, without gaps. */
static void gather(struct job *job) {
  struct request *request = job->request;
  for (int i = 0; i < request->image_count; i++) {
    if (job->parts[i].good) request->timings[request->timing_count++] = request->timings[i];
  }
}

/* The parts in order. */
static void join(struct job *job) {
  struct request *request = job->request;
  struct text *text = &request->reply.body;
  for (int i = 0; i < request->image_count; i++) {
    struct part *part = &job->parts[i];
    text_puts(text, i ? ",{" : "{");
    text_append(text, part->text.data ? part->text.data : "", part->text.length);
    text_puts(text, "}");
    text->failed |= part->text.failed;
    text_release(&part->text);
  }
  text_puts(text, "]");
}

static void run_several(struct request *request, struct classify_scratch *scratch) {
  const uint64_t all = (uint64_t)request->server->config->max_pixels;
  struct job job = {.request = request, .share = all / (uint64_t)request->image_count};
  struct spread spread = {.run = run_part, .leave = nobody_waits, .context = &job, .count = request->image_count};
  job.parts = calloc((size_t)request->image_count, sizeof *job.parts);
  if (!job.parts) {
    route_no_memory(request);
    return;
  }
  spread_images(&request->server->spread, &spread, scratch);
  if (!job.gone) run_late(&job, scratch);
  request->gone = job.gone;
  gather(&job);
  if (!job.gone) join(&job);
  for (int i = 0; i < request->image_count; i++) text_release(&job.parts[i].text);
  free(job.parts);
}

static void run_one(struct request *request, struct classify_scratch *scratch) {
  struct job job = {.request = request};
  struct classify_result result;
  struct hwgq_error error = {{0}};
  enum hwgq_status status = classify_one(&job, 0, (uint64_t)request->server->config->max_pixels, scratch, &result, &error);
  if (status) {
    struct problem problem = problem_of(status);
    reply_error(&request->reply, problem.status, problem.code, request->id, "%s", error.message);
    if (problem.status == 503) request->reply.retry_after = 1;
    return;
  }
  request->timings[request->timing_count++] = (struct stats_image){.decode_ns = result.decode_ns,
                                                                   .preprocess_ns = result.preprocess_ns,
                                                                   .inference_ns = result.inference_ns,
                                                                   .shared = result.helpers > 0};
  write_result(request, &result, &request->reply.body);
}

static void run(struct request *request, struct classify_scratch *scratch) {
  struct text *text = &request->reply.body;
  text_puts(text, "{\"request_id\":");
  text_json_string(text, request->id);
  text_printf(text, ",\"model\":\"%s\",\"version\":\"%d\",%s", request->model->name, request->model->version,
              request->several ? "\"results\":[" : "");
  if (request->several) run_several(request, scratch);
  if (!request->several) run_one(request, scratch);
  if (request->reply.status || request->gone) return;
  request->reply.status = 200;
  request->reply.content_type = REPLY_JSON;
}

static void write_ms(struct text *text, const char *name, uint64_t ns) {
  text_puts(text, name);
  text_ms(text, ns);
}

static void write_timing(struct request *request) {
  struct text *text = &request->reply.body;
  uint64_t decode = 0, preprocess = 0, inference = 0;
  for (int i = 0; i < request->timing_count; i++) {
    decode += request->timings[i].decode_ns;
    preprocess += request->timings[i].preprocess_ns;
    inference += request->timings[i].inference_ns;
  }
  write_ms(text, ",\"timing_ms\":{\"queue\":", request->queue_ns);
  write_ms(text, ",\"decode\":", decode);
  write_ms(text, ",\"preprocess\":", preprocess);
  write_ms(text, ",\"inference\":", inference);
  write_ms(text, ",\"total\":", request->total_ns);
  text_puts(text, "}}\n");
}

const struct route_work route_classify = {.headers = check_headers, .body = open_body, .run = run, .end = write_timing};
