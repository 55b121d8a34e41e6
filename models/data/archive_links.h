/* Links within an archive: an image may stand in it once and be linked from other places, as hard links are always kept. What
 * they lead to may come later, or may not have been read, so they are followed in a second reading. Internal to models/data. */
#ifndef ARCHIVE_LINKS_H
#define ARCHIVE_LINKS_H

#include "models/data/index.h"

struct archive_link {
  char *path;        /* of the link within the archive */
  char *stated;      /* what it leads to, as it says itself */
  char *target;      /* the same as a path within the archive; NULL: it leads out of it */
  const char *final; /* after archive_links_follow: where the links that it leads to end; NULL: outside, or nowhere */
  bool image;        /* has an entry, of this slot: */
  size_t slot;
  bool found, beneath, images; /* at `final` there is a file; below it are files, images among them */
};

struct archive_links {
  struct archive_link *list;
  size_t count, capacity;
  struct archive_link **by_final; /* after archive_links_follow: those that end somewhere, by `final` */
  size_t final_count;
};

/* Hard links lead to paths of the archive, symbolic ones to paths beside their own. image: it has an entry, of this slot. False
 * without memory. */
bool archive_links_add(struct archive_links *links, const char *path, const char *stated, bool hard, bool image, size_t slot);
/* Links to links end where the last one leads. False without memory. */
bool archive_links_follow(struct archive_links *links);
/* Notes that the archive has this file. Gives the links that end there: *count of them, in by_final. */
struct archive_link **archive_links_note(struct archive_links *links, const char *path, size_t *count);
/* HWGQ_OK unless one that matters does not lead to a file of the archive. used[slot]: that image is wanted. undivided: the
 * images are in no split. */
enum hwgq_status archive_links_check(const struct archive_links *links, const char *archive, const bool *used, bool undivided,
                                     struct hwgq_error *error);
void archive_links_release(struct archive_links *links);

#endif
