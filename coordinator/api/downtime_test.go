package api

import (
	"testing"
	"time"

	"drover/internal/migration"
)

func TestABlackoutIsComparedWithTheBudgetAndThePrediction(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		budget, predicted, measured time.Duration
		want                        Downtime
	}{
		{200 * ms, 100 * ms, 150 * ms, Downtime{Budget: 200 * ms, Predicted: 100 * ms, Measured: 150 * ms, Error: 50}},
		{200 * ms, 400 * ms, 300 * ms, Downtime{Budget: 200 * ms, Predicted: 400 * ms, Measured: 300 * ms, Error: -25, Missed: true}},
		{200 * ms, 180 * ms, 200 * ms, Downtime{Budget: 200 * ms, Predicted: 180 * ms, Measured: 200 * ms, Error: 11.1}},
		{200 * ms, 180 * ms, 0, Downtime{Budget: 200 * ms, Predicted: 180 * ms}},
		{0, 0, 400 * ms, Downtime{Budget: migration.DefaultDowntime, Measured: 400 * ms, Missed: true}},
	} {
		if got := NewDowntime(c.budget, c.predicted, c.measured); got != c.want {
			t.Errorf("%s asked for, %s predicted, %s measured: got %+v, want %+v", c.budget, c.predicted, c.measured, got, c.want)
		}
	}
}
