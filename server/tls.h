/* The certificate of HTTPS, which may be replaced while connections are open: each handshake takes the one that is in force. */
#ifndef TLS_H
#define TLS_H

#include "engine/hwgq.h"

#include <gnutls/abstract.h>
#include <gnutls/gnutls.h>

/* TLS 1.2 or newer, with GnuTLS's choice of ciphers. */
#define TLS_PRIORITIES "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"

struct tls;
struct tls *tls_create(void); /* NULL: no memory */
void tls_destroy(struct tls *tls);
/* Reads certificate chain and private key (PEM) and puts them in force when they fit together; a failure changes nothing.
 * *days_left: until the certificate expires, negative when it has; may be NULL. */
enum hwgq_status tls_load(struct tls *tls, const char *certificate, const char *key, int64_t *days_left,
                          struct hwgq_error *error);
/* The body of a gnutls_certificate_retrieve_function3: copies for one handshake, which GnuTLS frees. 0, or -1. */
int tls_retrieve(struct tls *tls, gnutls_pcert_st **chain, unsigned *chain_length, gnutls_privkey_t *key, unsigned *flags);

/* As a client, for the probe of the local daemon: sends `question` over the connected socket and reads up to `size` - 1 bytes
 * of the answer, zero-terminated. The certificate is not checked: nothing is told that matters. Returns the length, 0 when it
 * failed. */
size_t tls_ask(int fd, const char *question, char *answer, size_t size);

#endif
