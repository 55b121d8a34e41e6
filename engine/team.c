/* Teams: helpers that take units of the leader's current step.
 *
 * The leader publishes a step by writing what it is and then one word, `claim`: a number that rises with every step, and the
 * first and last unit that nobody has taken yet. A participant takes units by moving one of these ends with a compare-and-swap;
 * so it can only take units of the step that the word named, and until it reports them as done the leader cannot go on to the
 * next step, which keeps plan, tensors and scratch memory in place. Helpers that have nothing need not be waited for: they may
 * come late, leave or be interrupted at any time, and touch nothing but the team.
 *
 * The leader starts at the first unit, the first helper at the last: step after step each works on the same rows of an image,
 * which its cache still has.
 *
 * Ranges shrink as a step ends (guided self-scheduling, Polychronopoulos and Kuck 1987), so participants that are late or slow
 * just take fewer. Nobody waits for long: a helper leaves after a few microseconds without work, and the leader, which must
 * wait when another thread has lost its core in the middle of a unit, gives its own away. */
#include "engine/team.h"

#include <sched.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
  LINE = 64, /* bytes of a cache line: what different participants write must not share one */
  MOST_UNITS = UINT16_MAX,
  PAUSES = 150, /* of some 50 to 150 cycles: what helpers wait before they ask for other threads to run, and leave after */
  YIELDS = 60,  /* of about half a microsecond */
  SPINS = 4 * PAUSES, /* the leader, before it sleeps */
  SLEEP_NS = 50000,
  STALL_NS = 300000,  /* of sleeping: the helpers' cores are not idle ones */
  SHORTEST_BREAK = 4, /* images without helpers after a stall */
  LONGEST_BREAK = 256,
  SHARE = 2,   /* a participant takes 1 / (SHARE * participants) of what is left */
  FINEST = 12, /* and not less than 1 / (FINEST * participants) of all */
  ARRIVAL = 4, /* steps in which a helper that was woken should have come */
};
/* What a range of units may take about at most, so that a helper that is wanted elsewhere is soon free. */
#define RANGE_NS 40000

struct hwgq_team {
  alignas(LINE) _Atomic uint64_t claim;  /* of pack(): step << 32 | begin << 16 | end */
  atomic_int least, most;                /* units to take at once; they may belong to a step before or after `claim` */
  alignas(LINE) atomic_int pending;      /* units of the step that are not done yet */
  alignas(LINE) _Atomic uint32_t joined; /* bit i: the helper with local memory i + 1 is there */
  _Atomic uint32_t worked;               /* those that computed something during this run */
  atomic_bool active;                    /* a run is in progress */
  /* Written by the leader before `claim`, and not changed while a unit is claimed and not done. */
  alignas(LINE) const struct hwgq_plan *plan;
  const struct plan_stage *stage;
  struct plan_frame frame;
  plan_run *run;
  /* The leader's. */
  bool stalled;         /* during this run, or in a break */
  int next_break, left; /* images to run without helpers after the next stall; that are left of a break */
  int expected;         /* steps in which a helper may still come */
  /* Constant. */
  int helpers;
  hwgq_team_wake *wake;
  void *context;
};

enum hwgq_status hwgq_team_create(int helpers, hwgq_team_wake *wake, void *context, struct hwgq_team **team,
                                  struct hwgq_error *error) {
  if (helpers < 1 || helpers > HWGQ_MAX_HELPERS) {
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "a team has 1 to %d helpers, not %d", HWGQ_MAX_HELPERS, helpers);
  }
  struct hwgq_team *made = aligned_alloc(LINE, sizeof *made);
  if (!made) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for a team");
  memset(made, 0, sizeof *made);
  made->helpers = helpers;
  made->wake = wake;
  made->context = context;
  *team = made;
  return HWGQ_OK;
}

void hwgq_team_destroy(struct hwgq_team *team) {
  free(team);
}

size_t hwgq_plan_team_scratch_bytes(const struct hwgq_plan *plan, int helpers) {
  return plan->shared_bytes + (size_t)(helpers + 1) * plan->local_bytes;
}

static int participants(const struct hwgq_team *team) {
  return 1 + __builtin_popcount(atomic_load_explicit(&team->joined, memory_order_relaxed));
}

static int clamp(int value, int least, int most) {
  return value < least ? least : value > most ? most : value;
}

static void rest(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb" ::: "memory");
#endif
}

/* ---- units -----------------------------------------------------------------------------------------------------------------
 */

static uint64_t pack(uint32_t step, struct plan_units units) {
  return (uint64_t)step << 32 | (uint64_t)units.begin << 16 | (uint64_t)units.end;
}
static struct plan_units unpack(uint64_t word) {
  return (struct plan_units){(int)(word >> 16 & 0xffff), (int)(word & 0xffff)};
}
static uint32_t step_of(uint64_t word) {
  return (uint32_t)(word >> 32);
}

static bool is_open(uint64_t word) {
  const struct plan_units left = unpack(word);
  return left.begin < left.end;
}

/* Takes units of the current step from its beginning or its end; `all`: whatever is left. */
static bool claim(struct hwgq_team *team, bool first, bool all, struct plan_units *units) {
  uint64_t word = atomic_load_explicit(&team->claim, memory_order_acquire);
  while (is_open(word)) {
    struct plan_units left = unpack(word);
    const int count = left.end - left.begin;
    const int least = atomic_load_explicit(&team->least, memory_order_relaxed);
    const int most = atomic_load_explicit(&team->most, memory_order_relaxed);
    const int taken = all ? count : clamp(clamp(count / (SHARE * participants(team)), least, most), 1, count);
    if (first) {
      *units = (struct plan_units){left.begin, left.begin + taken};
      left.begin += taken;
    } else {
      *units = (struct plan_units){left.end - taken, left.end};
      left.end -= taken;
    }
    if (atomic_compare_exchange_weak_explicit(&team->claim, &word, pack(step_of(word), left), memory_order_acq_rel,
                                              memory_order_acquire)) {
      return true;
    }
  }
  return false;
}

/* Computes what it can get of the current step, and reports it. `local`: which participant's memory; `all`: as in claim.
 * Returns whether there was anything. */
static bool work(struct hwgq_team *team, int local, bool all, bool (*leave)(void *), void *context) {
  struct plan_units units;
  int done = 0;
  while (!(leave && leave(context)) && claim(team, local % 2 == 0, all, &units)) {
    struct plan_frame frame = team->frame;
    frame.local += (size_t)local * team->plan->local_bytes;
    team->run(team->plan, team->stage, &frame, units);
    done += units.end - units.begin;
  }
  if (!done) return false;
  if (local) atomic_fetch_or_explicit(&team->worked, 1u << (local - 1), memory_order_relaxed);
  atomic_fetch_sub_explicit(&team->pending, done, memory_order_acq_rel);
  return true;
}

/* ---- the leader ------------------------------------------------------------------------------------------------------------
 */

void team_begin(struct hwgq_team *team) {
  team->stalled = team->left > 0;
  team->expected = 0;
  atomic_store_explicit(&team->worked, 0, memory_order_relaxed);
  atomic_store_explicit(&team->active, !team->stalled, memory_order_release);
}

int team_end(struct hwgq_team *team) {
  if (team->left > 0) {
    team->left--;
  } else if (team->stalled) {
    team->left = team->next_break = clamp(2 * team->next_break, SHORTEST_BREAK, LONGEST_BREAK);
  } else if (team->next_break > 0) {
    team->next_break--;
  }
  atomic_store_explicit(&team->active, false, memory_order_release);
  return __builtin_popcount(atomic_load_explicit(&team->worked, memory_order_relaxed));
}

static int64_t nanoseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Until the units that others have taken are done. */
static void wait_for_helpers(struct hwgq_team *team) {
  for (int round = 0; round < SPINS; round++) {
    if (atomic_load_explicit(&team->pending, memory_order_acquire) == 0) return;
    rest();
  }
  const int64_t start = nanoseconds();
  while (atomic_load_explicit(&team->pending, memory_order_acquire) > 0) {
    nanosleep(&(struct timespec){.tv_nsec = SLEEP_NS}, NULL);
    if (nanoseconds() - start > STALL_NS) team->stalled = true;
  }
}

/* Wakes a helper if there is room. Returns whether one is there or may come during this step. */
static bool expects_help(struct hwgq_team *team) {
  const int present = participants(team);
  if (!team->wake) return true;
  if (present <= team->helpers && team->wake(team->context)) team->expected = ARRIVAL;
  if (present == 1 && team->expected > 0) return team->expected--;
  return present > 1;
}

void team_step(struct hwgq_team *team, const struct hwgq_plan *plan, const struct plan_stage *stage,
               const struct plan_frame *frame, plan_run *run, int count) {
  if (count == 1 || count > MOST_UNITS || team->stalled) {
    run(plan, stage, frame, (struct plan_units){0, count});
    return;
  }
  const uint32_t number = step_of(atomic_load_explicit(&team->claim, memory_order_relaxed)) + 1;
  const uint64_t most = (uint64_t)count * RANGE_NS / (stage->cost_ns + 1);
  team->plan = plan;
  team->stage = stage;
  team->frame = *frame;
  team->run = run;
  atomic_store_explicit(&team->least, count / (FINEST * participants(team)), memory_order_relaxed);
  atomic_store_explicit(&team->most, most < (uint64_t)count ? (int)most : count, memory_order_relaxed);
  atomic_store_explicit(&team->pending, count, memory_order_relaxed);
  /* In one order with what `wake` reads and with a helper's last look (hwgq_team_open) before it sleeps. */
  atomic_store_explicit(&team->claim, pack(number, (struct plan_units){0, count}), memory_order_seq_cst);
  work(team, 0, !expects_help(team), NULL, NULL);
  wait_for_helpers(team);
}

/* ---- helpers ---------------------------------------------------------------------------------------------------------------
 */

bool hwgq_team_open(const struct hwgq_team *team) {
  return is_open(atomic_load_explicit(&team->claim, memory_order_seq_cst)) && participants(team) <= team->helpers;
}

/* The lowest free place, or -1. */
static int join(struct hwgq_team *team) {
  uint32_t joined = atomic_load_explicit(&team->joined, memory_order_relaxed);
  for (;;) {
    const int place = __builtin_ctz(~joined);
    if (place >= team->helpers) return -1;
    if (atomic_compare_exchange_weak_explicit(&team->joined, &joined, joined | 1u << place, memory_order_acquire,
                                              memory_order_relaxed)) {
      return place;
    }
  }
}

/* Whether there is something to take before patience ends. */
static bool wait_for_step(const struct hwgq_team *team, bool (*leave)(void *), void *context) {
  for (int round = 0; round < PAUSES + YIELDS; round++) {
    if (leave && leave(context)) return false;
    if (is_open(atomic_load_explicit(&team->claim, memory_order_relaxed))) return true;
    if (!atomic_load_explicit(&team->active, memory_order_relaxed)) return false;
    if (round < PAUSES) {
      rest();
    } else {
      sched_yield();
    }
  }
  return false;
}

bool hwgq_team_help(struct hwgq_team *team, bool (*leave)(void *context), void *context) {
  bool helped = false;
  if (!atomic_load_explicit(&team->active, memory_order_acquire)) return false;
  const int place = join(team);
  if (place < 0) return false;
  while (wait_for_step(team, leave, context)) {
    helped |= work(team, place + 1, false, leave, context);
  }
  atomic_fetch_and_explicit(&team->joined, ~(1u << place), memory_order_release);
  return helped;
}
