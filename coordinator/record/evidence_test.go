package record

import (
	"strings"
	"testing"

	"drover/coordinator/api"
	"drover/internal/migration"
)

func TestAStepKeepsWhatItRestedOnWithinBounds(t *testing.T) {
	b := at(t, migration.Copying)
	freeze := step(migration.Copying, 1, migration.EvFreeze)
	freeze.Answers = []api.Answer{{Host: "a", Error: strings.Repeat("ä", 300)}, {Host: "b"}, {Host: "c"}}
	b.do(freeze)
	tr := b.Migrations["m"].Transitions
	got := tr[len(tr)-1]
	if len(got.Answers) != api.MaxAnswers || len(got.Answers[0].Error) > api.MaxAnswerError || got.By != "test" || got.Owner != "a" || got.Epoch != 1 {
		t.Errorf("kept %+v", got)
	}
}

func TestTheEntryThatEndsProbationIsKeptAndStays(t *testing.T) {
	b := at(t, migration.Released)
	over := Note{Migration: "m", Phase: migration.Released, ProbationOver: true, Answers: []api.Answer{{Host: "b", Alive: true}}}
	b.do(over)
	first := b.Migrations["m"].Passed
	b.do(over)
	if now := b.Migrations["m"].Passed; first == nil || now.Index != first.Index || now.Owner != "b" || !now.Answers[0].Alive {
		t.Errorf("kept %+v, then %+v", first, now)
	}
}
