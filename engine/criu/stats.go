package criu

import (
	"os"
	"time"

	"github.com/checkpoint-restore/go-criu/v8/stats"

	"drover/engine"
)

// dumpStats reads the stats-dump image, which CRIU writes once a dump has succeeded; without it the figures are zero.
func (s *swrk) dumpStats() engine.Stats {
	dir, err := os.Open(inDir(s.images, "."))
	if err != nil {
		return engine.Stats{}
	}
	defer dir.Close()
	st, err := stats.CriuGetDumpStats(dir)
	if err != nil {
		return engine.Stats{}
	}
	return engine.Stats{
		Freezing:     time.Duration(st.GetFreezingTime()) * time.Microsecond,
		Frozen:       time.Duration(st.GetFrozenTime()) * time.Microsecond,
		PagesScanned: st.GetPagesScanned(),
		PagesWritten: st.GetPagesWritten(),
		PagesParent:  st.GetPagesSkippedParent(),
	}
}

// restoreStats reads the stats-restore image.
func (s *swrk) restoreStats() engine.Stats {
	dir, err := os.Open(inDir(s.images, "."))
	if err != nil {
		return engine.Stats{}
	}
	defer dir.Close()
	st, err := stats.CriuGetRestoreStats(dir)
	if err != nil {
		return engine.Stats{}
	}
	return engine.Stats{
		Restore:      time.Duration(st.GetRestoreTime()) * time.Microsecond,
		PagesWritten: st.GetPagesRestored(),
	}
}
