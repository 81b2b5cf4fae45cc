package sim

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestSchedulesThatOnceBrokeAPromise replays the tapes in testdata: what each shows is how the code behaved that it was found in, broken on purpose
// or not. On the code as it is no rule may be broken.
func TestSchedulesThatOnceBrokeAPromise(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no tapes: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			tape, err := readTape(file)
			if err != nil {
				t.Fatal(err)
			}
			if trace, err := Replay(tape); err != nil {
				t.Errorf("%v\n%s", err, strings.Join(trace, "\n"))
			}
		})
	}
}

// readTape reads the choices of a kept schedule: the line that begins with "tape:".
func readTape(file string) (tape []uint16, err error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(raw)) {
		choices, ok := strings.CutPrefix(line, "tape:")
		if !ok {
			continue
		}
		for _, word := range strings.Fields(choices) {
			n, err := strconv.ParseUint(word, 10, 16)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
			tape = append(tape, uint16(n))
		}
		return tape, nil
	}
	return nil, fmt.Errorf("%s has no tape", file)
}
