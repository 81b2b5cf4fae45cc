package migration

import "time"

// How long a migration may take where nobody says, and the most that may be said.
const (
	DefaultDowntime = 300 * time.Millisecond // the blackout that is aimed at
	MaxDowntime     = time.Hour

	DefaultProbation = 2 * time.Second // for which the source is held after the release
	MaxProbation     = time.Hour

	DefaultDeadline = 30 * time.Minute // from admission to the verdict
	MaxDeadline     = 7 * 24 * time.Hour
)
