package mutations

// edit changes a text, which stands once in a file below the module's root.
type edit struct{ file, from, to string }

// breakage is one deliberate mistake.
type breakage struct {
	name  string
	edits []edit
	test  string // the package whose tests catch it, where the simulator cannot: its model does not go there, or another rule stands behind; "" for the simulator
}

const (
	next      = "coordinator/drive/next.go"
	proof     = "coordinator/drive/proof.go"
	steps     = "coordinator/record/migrations.go"
	table     = "internal/migration/table.go"
	programs  = "worker/session/rules/programs.go"
	verdict   = "worker/session/rules/verdict.go"
	takeup    = "worker/session/rules/takeup.go"
	otherwise = "worker/session/rules/else.go"
	past      = "worker/session/rules/past.go"
	lines     = "worker/journal/record.go"
	holds     = "worker/keeper/holds.go"
)

var breakages = []breakage{
	{"COMMIT before the target is held", []edit{{next,
		"if v.Target.step() != workerapi.StepHeld {", "if v.Target.step() != workerapi.StepHeld && v.Target.step() != workerapi.StepStaged {"}}, ""},
	{"the verdict is not compared and set", []edit{
		{steps, "case m.Phase != t.From:\n\t\treturn conflict(\"migration %s is %s, not %s\", m.ID, m.Phase, t.From)\n\tcase !ok || w.Migration", "case !ok || w.Migration"},
		{steps, "m.Transitions = slices.Clip(m.Transitions)", "m.Transitions, m.Phase = slices.Clip(m.Transitions), t.From"}}, ""},
	{"ABORT after COMMIT", []edit{{table,
		"\t{Held, EvAbort, Aborted,", "\t{Committed, EvAbort, Aborted, \"\", \"\", \"\", \"\"},\n\t{Held, EvAbort, Aborted,"},
		{steps, "case w.Epoch != t.Epoch:", "case false:"}}, ""},
	{"COMMIT does not raise the epoch", []edit{{steps, "w.Owner, w.Epoch = m.Target, w.Epoch+1", "w.Owner = m.Target"}}, ""},
	{"the record does not look at a proposal's epoch", []edit{{steps, "case w.Epoch != t.Epoch:", "case false:"}}, "./coordinator/record"},
	{"a worker does not look at a verdict's epoch", []edit{{verdict, "if want := Brings(v, s.Epoch); epoch != want {", "if want := Brings(v, s.Epoch); false {"}}, "./worker/session/rules"},
	{"a deposed leader's order to open is taken", []edit{{verdict, "if req.Epoch < newest {", "if false {"}}, "./worker/session/rules"},
	{"a host that has rebooted opens what was admitted before", []edit{{verdict, "if req.Boot != \"\" && boot != \"\" && req.Boot != boot {", "if false {"}}, ""},
	{"a verdict is acted on before it is in the journal", []edit{{verdict,
		"p = join(Program{WriteVerdict, TellVerdict}, p)", "p = join(p, Program{WriteVerdict, TellVerdict})"}}, ""},
	{"the last word is sent before the journal knows that the tree is held", []edit{{programs,
		"{WriteFrozen, SendRest, AwaitFrozen, Finish, TellStaged}", "{WriteFrozen, SendRest, Finish, AwaitFrozen, TellStaged}"}}, ""},
	{"a release is told before it is in the journal", []edit{{programs,
		"{LetRun, Accept, SeeAlive, WriteRuled, TellReleased}", "{LetRun, Accept, SeeAlive, TellReleased, WriteRuled}"}}, ""},
	{"a source is ended at COMMIT", []edit{{programs, "\treturn Program{WriteRuled}\n", "\treturn join(endSource, Program{WriteRuled})\n"}}, ""},
	{"a source is confirmed without probation", []edit{{next, "\tcase !m.ProbationOver:\n", "\tcase false:\n"}}, ""},
	{"probation ends while memory is being filled in", []edit{{next, "case !m.ProbationOver && v.Target.Session.Filling != nil:", "case false:"}}, ""},
	{"an old answer ends probation", []edit{{next, "v.Target.Asked.Before(end)", "v.Target.Seen.Before(end)"}}, "./coordinator/drive"},
	{"a target that has lost its tree ends probation", []edit{{next,
		"case !m.ProbationOver && v.Target.step() != workerapi.StepReleased:", "case !m.ProbationOver && v.Target.Absent:"}}, "./coordinator/drive"},
	{"RECLAIM because the target is silent", []edit{{proof, "\tcase t.Rebooted:\n", "\tcase !t.Lost.IsZero():\n\t\treturn \"it is silent\"\n\tcase t.Rebooted:\n"}}, ""},
	{"RECLAIM after probation", []edit{
		{steps, "if ev == migration.EvReclaim && m.ProbationOver {", "if false {"},
		{next, "proof != \"\" && !m.ProbationOver", "proof != \"\""}}, ""},
	{"a restarted worker thaws a frozen tree that its keeper has lost", []edit{{takeup, "Program{Freeze, Fence, TellFailed}", "Program{Unfence, Thaw, TellFailed}"}}, ""},
	{"a restarted worker gives back a tree that is held", []edit{{takeup,
		"return s.takenUp(\"\", Program{TellFrozen})", "return s.takenUp(WhileCopying, join(resumeTree, Program{TellFailed}))"}}, ""},
	{"a restarted worker releases a held copy", []edit{{takeup,
		"return s.takenUp(\"\", Program{TellHeld})", "return s.takenUp(\"\", join(releaseTree, Program{TellReleased}))"}}, ""},
	{"a restarted worker says that a tree lives without a look", []edit{{takeup, "Program{SeeAlive, TellReleased}", "Program{TellReleased}"}}, "./worker/session"},
	{"a worker that died while it removed a copy cannot prove it dead", []edit{{takeup, "Program{Mourn, TellFailed}", "Program{TellFailed}"}}, ""},
	{"a copy whose engine died at the release is left", []edit{{otherwise, "return join(makeDead, Program{TellFailed}), false", "return Program{TellFailed}, false"},
		{programs, "case a == release && s.Broken && !s.Gone:", "case false:"}}, ""},
	{"an abort in the middle of a dump forgets the hold", []edit{{programs,
		"\treturn resumeTree // whether", "\tif !s.Holds {\n\t\treturn Program{StopCopying, Unfence, Thaw, Return, DropImages}\n\t}\n\treturn resumeTree // whether"}}, ""},
	{"a verdict that was acted on is acted on again", []edit{{verdict, "case s.Verdict == v && s.Ruled:", "case false:"}}, "./worker/session/rules"},
	{"an undone copy is not removed", []edit{{programs, "removeCopy  = Program{Refuse, Discard}", "removeCopy  = Program{Refuse}"}}, ""},
	{"a COMMIT in the journal is forgotten by a Reclaim", []edit{{past, "p.committed = p.committed || p.Ruling.Verdict == migration.Commit", "p.committed = p.Ruling.Verdict == migration.Commit"}}, "./worker/session/rules"},
	{"the torn end of a journal is taken for damage", []edit{{lines, "case err != nil && last:", "case false && last:"}}, ""},
	{"a journal's record is taken without its checksum", []edit{{lines, "if err != nil || uint32(want) != crc32.Checksum(body, castagnoli) {", "if err != nil || want == 1 {"}}, "./worker/journal"},
	{"a dump that goes on passes for no hold", []edit{{holds, "\t\tif work == nil {\n", "\t\tif true {\n"}}, "./worker/keeper"},
	{"a hold is kept that nobody has heard of", []edit{{holds, "\tif cl.unwanted() {\n", "\tif false {\n"}}, "./worker/keeper"},
	{"a closed socket ends a hold", []edit{{holds, "\t\tcase <-cl.gone:\n\t\tcase <-cl.ctx.Done():\n", "\t\tcase <-cl.gone:\n\t\t\t_ = h.Abort(ctx)\n\t\tcase <-cl.ctx.Done():\n"}}, "./worker/keeper"},
}
