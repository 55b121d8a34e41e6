#include "server/tls.h"

#include <errno.h>
#include <gnutls/x509.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_CHAIN = 16, MAX_FILE_BYTES = 1 << 20 };

struct pair {
  gnutls_x509_crt_t *chain;
  unsigned chain_length;
  gnutls_x509_privkey_t key;
};

struct tls {
  pthread_rwlock_t lock;
  struct pair pair; /* in force; chain NULL: none yet */
};

struct tls *tls_create(void) {
  struct tls *tls = calloc(1, sizeof *tls);
  if (tls && pthread_rwlock_init(&tls->lock, NULL)) {
    free(tls);
    tls = NULL;
  }
  return tls;
}

static void release(struct pair *pair) {
  for (unsigned i = 0; pair->chain && i < pair->chain_length; i++) gnutls_x509_crt_deinit(pair->chain[i]);
  gnutls_free(pair->chain);
  if (pair->key) gnutls_x509_privkey_deinit(pair->key);
  *pair = (struct pair){0};
}

void tls_destroy(struct tls *tls) {
  if (!tls) return;
  pthread_rwlock_destroy(&tls->lock);
  release(&tls->pair);
  free(tls);
}

static enum hwgq_status read_file(const char *config_key, const char *path, gnutls_datum_t *data, struct hwgq_error *error) {
  FILE *stream = fopen(path, "rbe");
  if (!stream) return hwgq_fail(error, HWGQ_ERROR_IO, "%s: cannot open %s: %s", config_key, path, strerror(errno));
  unsigned char *bytes = malloc(MAX_FILE_BYTES);
  size_t length = bytes ? fread(bytes, 1, MAX_FILE_BYTES, stream) : 0;
  bool failed = ferror(stream);
  fclose(stream);
  *data = (gnutls_datum_t){.data = bytes, .size = (unsigned)length};
  if (bytes && !failed && length < MAX_FILE_BYTES) return HWGQ_OK;
  free(bytes);
  *data = (gnutls_datum_t){0};
  if (!bytes) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "%s: no memory", config_key);
  return failed ? hwgq_fail(error, HWGQ_ERROR_IO, "%s: cannot read %s: %s", config_key, path, strerror(errno))
                : hwgq_fail(error, HWGQ_ERROR_LIMIT, "%s: %s is larger than 1 MiB", config_key, path);
}

static enum hwgq_status import(const char *certificate, const gnutls_datum_t *chain, const char *key,
                               const gnutls_datum_t *private_key, struct pair *pair, struct hwgq_error *error) {
  int code = gnutls_x509_crt_list_import2(&pair->chain, &pair->chain_length, chain, GNUTLS_X509_FMT_PEM,
                                          GNUTLS_X509_CRT_LIST_FAIL_IF_UNSORTED);
  if (code < 0) {
    return hwgq_fail(error, HWGQ_ERROR_FORMAT,
                     "tls_certificate: %s holds no PEM certificate chain that begins with the server's own: %s", certificate,
                     gnutls_strerror(code));
  }
  if (pair->chain_length > MAX_CHAIN) {
    return hwgq_fail(error, HWGQ_ERROR_LIMIT, "tls_certificate: %s has more than %d certificates", certificate, MAX_CHAIN);
  }
  code = gnutls_x509_privkey_init(&pair->key);
  if (code == 0) code = gnutls_x509_privkey_import2(pair->key, private_key, GNUTLS_X509_FMT_PEM, NULL, GNUTLS_PKCS_PLAIN);
  if (code < 0) {
    return hwgq_fail(error, HWGQ_ERROR_FORMAT, "tls_key: %s holds no private key in PEM without a password: %s", key,
                     gnutls_strerror(code));
  }
  return HWGQ_OK;
}

/* The public key's identifier is the same on both sides. */
static enum hwgq_status check_match(const char *certificate, const char *key, const struct pair *pair,
                                    struct hwgq_error *error) {
  unsigned char a[64], b[64];
  size_t a_size = sizeof a, b_size = sizeof b;
  int code = gnutls_x509_crt_get_key_id(pair->chain[0], GNUTLS_KEYID_USE_SHA256, a, &a_size);
  if (code == 0) code = gnutls_x509_privkey_get_key_id(pair->key, GNUTLS_KEYID_USE_SHA256, b, &b_size);
  if (code == 0 && a_size == b_size && memcmp(a, b, a_size) == 0) return HWGQ_OK;
  return hwgq_fail(error, HWGQ_ERROR_INVALID, "tls_key: the private key in %s does not belong to the certificate in %s", key,
                   certificate);
}

enum hwgq_status tls_load(struct tls *tls, const char *certificate, const char *key, int64_t *days_left,
                          struct hwgq_error *error) {
  gnutls_datum_t chain = {0}, private_key = {0};
  struct pair pair = {0};
  enum hwgq_status status = read_file("tls_certificate", certificate, &chain, error);
  if (!status) status = read_file("tls_key", key, &private_key, error);
  if (!status) status = import(certificate, &chain, key, &private_key, &pair, error);
  if (!status) status = check_match(certificate, key, &pair, error);
  free(chain.data);
  if (private_key.data) gnutls_memset(private_key.data, 0, private_key.size);
  free(private_key.data);
  if (status) {
    release(&pair);
    return status;
  }
  if (days_left) *days_left = (int64_t)(gnutls_x509_crt_get_expiration_time(pair.chain[0]) - time(NULL)) / 86400;
  pthread_rwlock_wrlock(&tls->lock);
  struct pair old = tls->pair;
  tls->pair = pair;
  pthread_rwlock_unlock(&tls->lock);
  release(&old);
  return HWGQ_OK;
}

static int copy(const struct pair *pair, gnutls_pcert_st *chain, gnutls_privkey_t *key) {
  unsigned made = 0;
  int code = gnutls_privkey_init(key);
  if (code < 0) return -1;
  code = gnutls_privkey_import_x509(*key, pair->key, GNUTLS_PRIVKEY_IMPORT_COPY);
  while (code == 0 && made < pair->chain_length) {
    code = gnutls_pcert_import_x509(&chain[made], pair->chain[made], 0);
    if (code == 0) made++;
  }
  if (code == 0) return 0;
  while (made) gnutls_pcert_deinit(&chain[--made]);
  gnutls_privkey_deinit(*key);
  return -1;
}

int tls_retrieve(struct tls *tls, gnutls_pcert_st **chain, unsigned *chain_length, gnutls_privkey_t *key, unsigned *flags) {
  int code = -1;
  pthread_rwlock_rdlock(&tls->lock);
  gnutls_pcert_st *made = tls->pair.chain ? gnutls_malloc(tls->pair.chain_length * sizeof *made) : NULL;
  gnutls_privkey_t made_key = NULL;
  if (made) code = copy(&tls->pair, made, &made_key);
  unsigned length = tls->pair.chain_length;
  pthread_rwlock_unlock(&tls->lock);
  if (code) {
    gnutls_free(made);
    return -1;
  }
  *chain = made;
  *chain_length = length;
  *key = made_key;
  *flags = GNUTLS_CERT_RETR_DEINIT_ALL;
  return 0;
}

static size_t exchange(gnutls_session_t session, const char *question, char *answer, size_t size) {
  size_t length = 0;
  int code;
  do {
    code = gnutls_handshake(session);
  } while (code < 0 && !gnutls_error_is_fatal(code) && code != GNUTLS_E_AGAIN);
  if (code < 0 || gnutls_record_send(session, question, strlen(question)) < 0) return 0;
  while (length + 1 < size) {
    ssize_t count = gnutls_record_recv(session, answer + length, size - 1 - length);
    if (count == GNUTLS_E_INTERRUPTED) continue;
    if (count <= 0) break;
    length += (size_t)count;
  }
  answer[length] = 0;
  return length;
}

size_t tls_ask(int fd, const char *question, char *answer, size_t size) {
  gnutls_certificate_credentials_t credentials = NULL;
  gnutls_session_t session = NULL;
  size_t length = 0;
  if (gnutls_certificate_allocate_credentials(&credentials) < 0) return 0;
  if (gnutls_init(&session, GNUTLS_CLIENT | GNUTLS_NO_SIGNAL) == 0) {
    if (gnutls_priority_set_direct(session, TLS_PRIORITIES, NULL) == 0 &&
        gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, credentials) == 0) {
      gnutls_transport_set_int(session, fd);
      length = exchange(session, question, answer, size);
    }
    gnutls_deinit(session);
  }
  gnutls_certificate_free_credentials(credentials);
  return length;
}
