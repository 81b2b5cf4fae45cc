package coordinator

import (
	"slices"
	"strings"
	"time"

	"drover/internal/errs"
	"drover/internal/migration"
	workerapi "drover/worker/api"
)

// Choices of an option; the empty one is the default.
var (
	trackers     = []string{"", "wp", "softdirty", "hash"}
	compressions = []string{"", "none", "s2", "zstd"}
)

// validOptions says what is wrong with what a person asked for, by the flag's name.
func validOptions(o workerapi.MoveOptions) error {
	if _, err := o.FinalState.Resolve(migration.OpRestore); err != nil {
		return err
	}
	if _, err := o.SourceFinalState.Resolve(migration.OpMigrationDump); err != nil {
		return err
	}
	bad := func(what string, have any, want string) error {
		return errs.New(errs.Invalid, "--%s %v makes no sense", what, have).WithNext("%s", want)
	}
	switch {
	case o.MaxRounds < 0 || o.MaxRounds > 64:
		return bad("max-rounds", o.MaxRounds, "choose 1 to 64")
	case o.Downtime < 0 || o.Downtime > time.Hour:
		return bad("downtime", o.Downtime, "choose a time above 0 and up to an hour")
	case !slices.Contains(trackers, o.Tracker):
		return bad("tracker", o.Tracker, "choose one of "+strings.Join(trackers[1:], ", "))
	case !slices.Contains(compressions, o.Compression):
		return bad("compression", o.Compression, "choose one of "+strings.Join(compressions[1:], ", "))
	case o.Bandwidth < 0:
		return bad("bandwidth", o.Bandwidth, "choose bytes a second, 0 for no limit")
	case o.Probation < 0 || o.Probation > time.Hour:
		return bad("probation", o.Probation, "choose a time up to an hour")
	case o.Deadline < 0 || o.Deadline > 7*24*time.Hour:
		return bad("deadline", o.Deadline, "choose a time up to a week")
	}
	return nil
}
