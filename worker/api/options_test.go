package api_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"drover/internal/errs"
	"drover/internal/migration"
	"drover/worker/api"
)

func TestAPolicyIsOnlyDefaults(t *testing.T) {
	for _, c := range []struct {
		why                 string
		asked               api.MoveOptions
		strict              bool
		throttle, maxRounds int
		patience            time.Duration
		bandwidth           int64
	}{
		{"nothing asked for", api.MoveOptions{}, false, 0, 8, 0, api.Unlimited},
		{"gentle", api.MoveOptions{Policy: migration.Gentle}, true, 0, 8, 30 * time.Second, 32e6},
		{"must-move", api.MoveOptions{Policy: migration.MustMove}, false, 80, 16, 5 * time.Second, api.Unlimited},
		{"gentle, but it may go over", api.MoveOptions{Policy: migration.Gentle, DowntimeStrict: new(false)}, false, 0, 8, 30 * time.Second, 32e6},
		{"gentle, but all of the link", api.MoveOptions{Policy: migration.Gentle, Bandwidth: api.Unlimited}, true, 0, 8, 30 * time.Second, api.Unlimited},
		{"must-move, but not slowed down, and at once", api.MoveOptions{Policy: migration.MustMove, Throttle: new(0), Patience: new(time.Duration(0))}, false, 0, 16, 0, api.Unlimited},
		{"fast, but slowed down", api.MoveOptions{Throttle: new(50), MaxRounds: 3, Bandwidth: 5}, false, 50, 3, 0, 5},
	} {
		got := c.asked.Resolved()
		if *got.DowntimeStrict != c.strict || *got.Throttle != c.throttle || got.MaxRounds != c.maxRounds || *got.Patience != c.patience || got.Bandwidth != c.bandwidth {
			t.Errorf("%s: %+v (strict %v, throttle %d, patience %s)", c.why, got, *got.DowntimeStrict, *got.Throttle, *got.Patience)
		}
		if again := got.Resolved(); !reflect.DeepEqual(again, got) {
			t.Errorf("%s: resolved again it is %+v", c.why, again)
		}
		if err := got.Check(); err != nil {
			t.Errorf("%s: %v", c.why, err)
		}
	}
}

func TestImpossibleOptionsAreNamed(t *testing.T) {
	for flag, o := range map[string]api.MoveOptions{
		"--policy":          {Policy: "reckless"},
		"--max-rounds":      {MaxRounds: 65},
		"--downtime":        {Downtime: -1},
		"--patience":        {Patience: new(-time.Second)},
		"--throttle":        {Throttle: new(81)},
		"--tracker":         {Tracker: "magic"},
		"--compression":     {Compression: "lzw"},
		"--bandwidth":       {Bandwidth: -2},
		"--probation":       {Probation: 2 * time.Hour},
		"--deadline":        {Deadline: 8 * 24 * time.Hour},
		"--freeze-deadline": {FreezeDeadline: 100 * time.Millisecond, Downtime: time.Second},
		"cannot leave":      {FinalState: migration.Dead},
	} {
		if err := o.Check(); errs.KindOf(err) != errs.Invalid || !strings.Contains(err.Error(), flag) || errs.NextOf(err) == "" {
			t.Errorf("%s: %v", flag, err)
		}
	}
}
