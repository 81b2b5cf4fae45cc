package sim

import (
	"flag"
	"os"
	"testing"
)

var (
	schedules = flag.Int("schedules", 20_000, "how many schedules to try")
	firstSeed = flag.Uint64("seed", 1, "the first one's seed")
)

// enough schedules come to everything that can happen; a short run need not.
const enough = 200_000

func TestWhateverGoesWrongOneCopyLivesOn(t *testing.T) {
	cover, failure := Run(*firstSeed, *schedules)
	if failure != nil {
		t.Fatal(failure) // keep it in testdata, once it is mended
	}
	if *schedules < enough {
		return
	}
	cover.Print(os.Stdout)
	for _, m := range cover.Missed() {
		t.Errorf("never tried: %s", m)
	}
}
