/* POST /v2/models/{name}[/versions/{version}]/infer. */
#include "server/clock.h"
#include "server/routes.h"
#include "server/v2_reply.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

static void check_headers(struct request *request) {
  const char *encoding = request_header(request, "Content-Encoding");
  uint64_t limit = (uint64_t)request->server->config->max_body_bytes;
  request->model = route_acquire(request);
  if (!request->model) return;
  if (encoding && strcasecmp(encoding, "identity") != 0) {
    reply_error(&request->reply, 415, "unsupported_encoding", request->id,
                "Content-Encoding '%.40s' is not read here. Send the body as it is.", encoding);
  } else if (request->content_length > limit) {
    reply_error(&request->reply, 413, "body_too_large", request->id,
                "The request body is larger than %llu bytes. Send fewer images, or raise max_body_bytes.",
                (unsigned long long)limit);
  }
}

/* Bytes of the body that are JSON; false: a reply stands. */
static bool json_length_of(struct request *request, size_t *length) {
  const char *text = request_header(request, "Inference-Header-Content-Length");
  *length = request->body_length;
  if (!text) return true;
  size_t digits = strspn(text, "0123456789");
  unsigned long long value = digits && digits <= 18 && !text[digits] ? strtoull(text, NULL, 10) : UINT64_MAX;
  if (value <= request->body_length) {
    *length = (size_t)value;
    return true;
  }
  reply_error(&request->reply, 400, "bad_header_length", request->id,
              "Inference-Header-Content-Length must be the number of bytes of JSON at the start of the body, at most %zu.",
              request->body_length);
  return false;
}

static bool open_body(struct request *request) {
  size_t length;
  if (request->body_length == 0) {
    reply_error(&request->reply, 400, "empty_body", request->id, "The request has no body. Send an inference request as JSON.");
    return false;
  }
  return json_length_of(request, &length);
}

/* What one request needs while it runs. */
struct job {
  struct v2_request parsed;
  struct v2_reader reader;
  struct classify_scratch *scratch;
  float *scores; /* batch rows */
  float *values; /* FP32: one input */
  int refusal;   /* the status of what went wrong, where `enum hwgq_status` does not tell it; 0: it does */
  /* Images that several workers run at once */
  struct request *request;
  _Atomic uint64_t pixels, decode_ns; /* that they took of max_pixels and max_decode_ms */
  bool gone;                          /* the client has closed its connection */
  pthread_mutex_t mutex;              /* for what follows: the failure of the first image that has one */
  int failed;                         /* its index; batch: none */
  enum hwgq_status status;
  struct hwgq_error error;
};

/* What depends on network and configuration. */
static enum hwgq_status check_input(const struct request *request, struct job *job, struct hwgq_error *error) {
  const struct v2_input *input = &job->parsed.input;
  const struct classifier *classifier = request->model->classifier;
  struct hwgq_shape wanted = classifier->input;
  long long allowed = (long long)request->server->config->max_images;
  if (input->batch > allowed) {
    job->refusal = 413;
    return hwgq_fail(error, HWGQ_ERROR_FORMAT, "one request may have %lld images: send several, or raise max_images", allowed);
  }
  if (input->datatype == V2_FP32 &&
      (input->channels != wanted.channels || input->height != wanted.height || input->width != wanted.width)) {
    return hwgq_fail(error, HWGQ_ERROR_FORMAT, "input 'tensor': the shape must be [N, %d, %d, %d], and ends in [%d, %d, %d]",
                     wanted.channels, wanted.height, wanted.width, input->channels, input->height, input->width);
  }
  uint64_t pixels = (uint64_t)input->height * (uint64_t)input->width;
  if (input->datatype == V2_UINT8 && pixels * (uint64_t)input->batch > (uint64_t)request->server->config->max_pixels) {
    return hwgq_fail(error, HWGQ_ERROR_LIMIT, "input 'pixels': more than %lld pixels: send smaller images, or raise max_pixels",
                     (long long)request->server->config->max_pixels);
  }
  return HWGQ_OK;
}

static enum hwgq_status allocate(struct request *request, struct job *job, struct hwgq_error *error) {
  const struct v2_input *input = &job->parsed.input;
  const struct hwgq_shape shape = request->model->classifier->input;
  size_t batch = (size_t)input->batch;
  request->timings = calloc(batch, sizeof *request->timings);
  job->scores = calloc(batch * (size_t)request->model->classifier->class_count, sizeof *job->scores);
  bool good = request->timings && job->scores;
  if (input->datatype == V2_FP32) {
    job->values = malloc((size_t)shape.channels * (size_t)shape.height * (size_t)shape.width * sizeof *job->values);
    good = good && job->values;
  }
  return good ? HWGQ_OK : hwgq_fail(error, HWGQ_ERROR_MEMORY, "the server has no memory for this request: try again later");
}

static void keep(struct job *job, int index, const struct classify_result *result, bool helper) {
  size_t classes = (size_t)job->request->model->classifier->class_count;
  memcpy(job->scores + (size_t)index * classes, result->scores, classes * sizeof *job->scores);
  job->request->timings[index] = (struct stats_image){.decode_ns = result->decode_ns,
                                                      .preprocess_ns = result->preprocess_ns,
                                                      .inference_ns = result->inference_ns,
                                                      .shared = helper || result->helpers > 0};
}

/* ---- images that lie in the body as they are: several at once -------------------------------------------------------------
 */

static bool lie_apart(const struct v2_input *input) {
  return input->datatype == V2_BYTES || (input->datatype == V2_UINT8 && input->binary);
}

/* All of them, before the first is run. */
static enum hwgq_status find_images(struct request *request, struct job *job, struct hwgq_error *error) {
  const struct v2_input *input = &job->parsed.input;
  const size_t pixels = (size_t)input->height * (size_t)input->width * (size_t)input->channels;
  enum hwgq_status status = HWGQ_OK;
  request->images = malloc((size_t)input->batch * sizeof *request->images);
  if (!request->images)
    return hwgq_fail(error, HWGQ_ERROR_MEMORY, "the server has no memory for this request: try again later");
  for (int i = 0; i < input->batch && !status; i++) {
    uint8_t *bytes = NULL;
    size_t length = pixels;
    status = input->datatype == V2_BYTES ? v2_read_bytes(&job->reader, &bytes, &length, error)
                                         : v2_read_pixels(&job->reader, &bytes, error);
    request->images[i] = (struct request_image){.bytes = bytes, .length = length};
  }
  return status ? status : v2_reader_finish(&job->reader, error);
}

/* The pixels of all files together are bounded. Whichever of them comes last and is too much, the request is refused. */
static enum hwgq_status classify_file(struct job *job, int index, struct classify_scratch *scratch,
                                      struct classify_result *result, struct hwgq_error *error) {
  const struct request *request = job->request;
  const struct config *config = request->server->config;
  const uint64_t all = (uint64_t)config->max_pixels, time = (uint64_t)config->max_decode_ms * CLOCK_MS;
  uint64_t before = atomic_load(&job->pixels), spent = atomic_load(&job->decode_ns);
  const struct image_limits limits = {.max_pixels = before < all ? all - before : 0,
                                      .max_scans = (int)config->max_scans,
                                      .deadline_ns = clock_now() + (spent < time ? time - spent : 0),
                                      .budget = &request->server->decoding,
                                      .needed = request_is_in_the_way,
                                      .context = (void *)(uintptr_t)request};
  enum hwgq_status status = classify_bytes(request->model->classifier, scratch, request->images[index].bytes,
                                           request->images[index].length, &limits, result, error);
  uint64_t pixels = (uint64_t)result->image.width * (uint64_t)result->image.height;
  atomic_fetch_add(&job->decode_ns, result->decode_ns - result->waited_ns + result->preprocess_ns);
  if (!status && atomic_fetch_add(&job->pixels, pixels) + pixels > all) {
    status = hwgq_fail(error, HWGQ_ERROR_LIMIT, "the images of this request have more than %llu pixels together: send several",
                       (unsigned long long)all);
  }
  /* A damaged image is no damaged request. */
  return status == HWGQ_ERROR_FORMAT ? HWGQ_ERROR_INVALID : status;
}

/* By any worker. */
static bool run_part(void *context, int index, struct classify_scratch *scratch, bool helper) {
  struct job *job = context;
  const struct v2_input *input = &job->parsed.input;
  struct classify_result result;
  struct hwgq_error error = {{0}};
  enum hwgq_status status;
  if (input->datatype == V2_BYTES) {
    status = classify_file(job, index, scratch, &result, &error);
  } else {
    const struct image image = {.width = input->width,
                                .height = input->height,
                                .channels = input->channels,
                                .pixels = (uint8_t *)(uintptr_t)job->request->images[index].bytes};
    status = classify_image(job->request->model->classifier, scratch, &image, &result, &error);
  }
  atomic_fetch_add(&job->request->spent_ns, classify_spent_ns(&result));
  if (!status) {
    keep(job, index, &result, helper);
    return true;
  }
  pthread_mutex_lock(&job->mutex);
  if (index < job->failed) {
    job->failed = index;
    job->status = status;
    job->error = error;
  }
  pthread_mutex_unlock(&job->mutex);
  return false;
}

static bool nobody_waits(void *context) {
  struct job *job = context;
  job->gone = request_abandoned(job->request);
  return job->gone;
}

/* The timings of what was classified, without gaps: all, or what had its turn before the client left. */
static void gather(struct request *request, int batch) {
  for (int i = 0; i < batch; i++) {
    if (request->timings[i].inference_ns) request->timings[request->timing_count++] = request->timings[i];
  }
}

/* False: the client has gone. */
static bool classify_apart(struct request *request, struct job *job, enum hwgq_status *status, struct hwgq_error *error) {
  const int batch = job->parsed.input.batch;
  struct spread spread = {.run = run_part, .leave = nobody_waits, .context = job, .count = batch};
  uint64_t start = clock_now();
  *status = find_images(request, job, error);
  atomic_fetch_add(&request->spent_ns, clock_now() - start);
  if (*status) return true;
  job->failed = batch;
  spread_images(&request->server->spread, &spread, job->scratch);
  *status = job->status;
  if (*status) *error = job->error;
  if (!*status) gather(request, batch);
  return !job->gone;
}

/* ---- images that are made from the body one after another -----------------------------------------------------------------
 */

static enum hwgq_status classify_next(struct request *request, struct job *job, struct classify_result *result,
                                      struct hwgq_error *error) {
  const struct v2_input *input = &job->parsed.input;
  const struct classifier *classifier = request->model->classifier;
  uint8_t *pixels = NULL;
  enum hwgq_status status;
  uint64_t start = clock_now();
  status = input->datatype == V2_FP32 ? v2_read_values(&job->reader, job->values, error)
                                      : v2_read_pixels(&job->reader, &pixels, error);
  uint64_t decoded = clock_now();
  *result = (struct classify_result){0};
  if (!status && input->datatype == V2_FP32) {
    status = classify_tensor(classifier, job->scratch, job->values, result, error);
  } else if (!status) {
    const struct image image = {.width = input->width, .height = input->height, .channels = input->channels, .pixels = pixels};
    status = classify_image(classifier, job->scratch, &image, result, error);
  }
  result->decode_ns = decoded - start;
  atomic_fetch_add(&request->spent_ns, classify_spent_ns(result));
  return status;
}

/* Every image, until one fails: the protocol has one error for a whole request. False: the client has gone. */
static bool classify_all(struct request *request, struct job *job, enum hwgq_status *status, struct hwgq_error *error) {
  const int batch = job->parsed.input.batch;
  for (int i = 0; i < batch; i++) {
    struct classify_result result;
    if (i && request_abandoned(request)) return false;
    *status = classify_next(request, job, &result, error);
    if (*status) {
      request->timing_count = 0; /* nobody gets the images before it */
      return true;
    }
    keep(job, i, &result, false);
    request->timing_count++;
  }
  *status = v2_reader_finish(&job->reader, error);
  if (*status) request->timing_count = 0;
  return true;
}

static enum hwgq_status prepare(struct request *request, struct job *job, struct hwgq_error *error) {
  size_t json_length;
  if (!json_length_of(request, &json_length)) return HWGQ_ERROR_FORMAT; /* was checked when the body was complete */
  enum hwgq_status status = v2_parse(request->body, request->body_length, json_length, &job->parsed, error);
  if (!status) status = check_input(request, job, error);
  if (!status) status = v2_reader_init(&job->reader, &job->parsed.input, error);
  if (!status) status = allocate(request, job, error);
  return status;
}

static void write_reply(struct request *request, const struct job *job) {
  const struct v2_result result = {.model_name = request->model->name,
                                   .model_version = request->model->version,
                                   .model = request->model->classifier->model,
                                   .scores = job->scores,
                                   .batch = job->parsed.input.batch};
  struct reply *reply = &request->reply;
  v2_write(&job->parsed, &result, &reply->body, &reply->header_length);
  if (!reply->header_length) text_puts(&reply->body, "\n");
  reply->status = 200;
  reply->content_type = reply->header_length ? "application/octet-stream" : REPLY_JSON;
}

static void write_failure(struct request *request, const struct job *job, enum hwgq_status status,
                          const struct hwgq_error *error) {
  int code = job->refusal                       ? job->refusal
             : status == HWGQ_ERROR_FORMAT      ? 400
             : status == HWGQ_ERROR_UNSUPPORTED ? 415
             : status == HWGQ_ERROR_MEMORY      ? 503
                                                : 422;
  reply_error(&request->reply, code, "inference_failed", request->id, "%s", error->message);
  if (code == 503) request->reply.retry_after = 1;
}

static void run(struct request *request, struct classify_scratch *scratch) {
  struct job job = {.scratch = scratch, .request = request, .mutex = PTHREAD_MUTEX_INITIALIZER};
  struct hwgq_error error = {{0}};
  uint64_t start = clock_now();
  enum hwgq_status status = prepare(request, &job, &error);
  atomic_fetch_add(&request->spent_ns, clock_now() - start);
  bool there = status || (lie_apart(&job.parsed.input) ? classify_apart : classify_all)(request, &job, &status, &error);
  if (!there) {
    request->gone = true;
  } else if (status) {
    write_failure(request, &job, status, &error);
  } else {
    write_reply(request, &job);
  }
  free(job.scores);
  free(job.values);
}

const struct route_work route_v2_infer = {.headers = check_headers, .body = open_body, .run = run};
