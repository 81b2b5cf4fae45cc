package drive

import (
	"testing"
	"time"

	"drover/internal/migration"
	workerapi "drover/worker/api"
)

func TestASourceThatRestartedAndHeardTheVerdictIsNotToldAgain(t *testing.T) {
	v := View{}
	word := func(step workerapi.Step, verdict migration.Verdict) {
		v.Source.Hear(workerapi.SessionState{Role: migration.Source, Step: step, Verdict: verdict}, time.Now())
	}
	word(workerapi.StepStaged, migration.Undecided)
	if len(v.tellSource()) == 0 {
		t.Error("it is not told of COMMIT")
	}
	word(workerapi.StepFrozen, migration.Commit) // its worker has restarted: what it had sent is forgotten, not that it is frozen
	if acts := v.tellSource(); len(acts) > 0 {
		t.Errorf("it is told again and again: %+v", acts)
	}
	if v.Source.step() != workerapi.StepStaged {
		t.Errorf("it went back to %s", v.Source.step())
	}
}
