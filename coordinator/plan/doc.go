// Package plan decides what a plan does next: a batch of migrations, a drain, or one that starts again by cron. It decides
// only: Next is a pure function of the plan, the record and the clock, and is what the simulator runs too.
//
// How the coordinator uses it, in a loop that runs on the leader alone:
//
//	p, err := plan.New(spec, now)            // for Apply and Drain: validated, defaults filled in; record PlanPut
//	for every plan with plan.Active(p), after each change of the record and about every second:
//	    for _, a := range plan.Next(p, state):
//	        plan.Mark      record PlanItems{Index, From: a.Was, Item: a.Item}
//	        plan.SetState  record PlanState{From, To, NextRun, Items}
//	        plan.Cordon    record the cordon
//	        plan.Abort     ask for the verdict Abort; errs.Conflict means that it was decided already, which is fine
//	        plan.Start     admit the migration (doctor included) of a.Item.Workload to a.To for this plan, then record
//	                       PlanItems{Index, From: a.Was, Item: a.Item with the migration's id}
//
// Repeating an action that was done, or leaving one out, does no harm: Next sees what is so and goes on from there. A leader
// that dies between a Start and its mark leaves a migration that the next leader's Next finds and adopts.
//
// A Start that the doctor refuses (errs.Refused, Invalid or NotFound) is remembered by the loop in State.Refused, not in the
// record; Next then tries another host or gives the item up with that reason. The loop forgets a refusal after a minute or
// so, so that a drain with a deadline looks again. Any other error of a Start is dropped: Next asks for it again.
//
// Admissions take the doctor's time. A loop that does not wait for them says in State.Starting which are under way.
//
// SteerPlan goes through Steer; a dry run of a drain through DrainReport.
//
// Start reading with Next.
package plan
