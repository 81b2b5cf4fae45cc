package drive

import (
	"drover/coordinator/record"
	"drover/internal/migration"
)

// Stray is what ends, in this order, a session that a host still has of a migration which is over: a request to open one may come so late
// that the migration has been rolled back without it.
func Stray(m record.Migration) []Action {
	switch v := m.Verdict(); v {
	case migration.Abort:
		return []Action{{Do: Decide, Verdict: v, Epoch: m.Epoch}}
	case migration.Reclaim:
		return []Action{{Do: Decide, Verdict: v, Epoch: m.Epoch + 2}}
	case migration.Commit:
		return []Action{{Do: Decide, Verdict: v, Epoch: m.Epoch + 1}, {Do: Confirm, Epoch: m.Epoch + 1}}
	}
	return nil
}
