/* How several threads share the units of a step (plan.h). Internal to the engine; hwgq.h has what callers see. */
#ifndef HWGQ_TEAM_H
#define HWGQ_TEAM_H

#include "engine/plan.h"

/* The leader's side: a run begins, its steps one by one, its end. Returns how many helpers computed something. */
void team_begin(struct hwgq_team *team);
void team_step(struct hwgq_team *team, const struct hwgq_plan *plan, const struct plan_stage *stage,
               const struct plan_frame *frame, plan_run *run, int count);
int team_end(struct hwgq_team *team);

#endif
