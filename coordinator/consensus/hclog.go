package consensus

import (
	"context"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// raftLog lets Raft, which logs by hclog, write to slog. Raft calls much a warning or an error that heals by itself (a
// peer that does not answer, an election): its levels go one step down.
type raftLog struct {
	hclog.Logger // what is not below does nothing
	log          *slog.Logger
	name         string
}

func newRaftLog(log *slog.Logger) hclog.Logger {
	return raftLog{Logger: hclog.NewNullLogger(), log: log, name: "raft"}
}

var levels = map[hclog.Level]slog.Level{
	hclog.Trace: slog.LevelDebug - 4,
	hclog.Debug: slog.LevelDebug - 4,
	hclog.Info:  slog.LevelDebug,
	hclog.Warn:  slog.LevelInfo,
	hclog.Error: slog.LevelWarn,
}

func (r raftLog) Log(level hclog.Level, msg string, args ...any) {
	r.log.Log(context.Background(), levels[level], r.name+": "+msg, args...)
}
func (r raftLog) Trace(msg string, args ...any)       { r.Log(hclog.Trace, msg, args...) }
func (r raftLog) Debug(msg string, args ...any)       { r.Log(hclog.Debug, msg, args...) }
func (r raftLog) Info(msg string, args ...any)        { r.Log(hclog.Info, msg, args...) }
func (r raftLog) Warn(msg string, args ...any)        { r.Log(hclog.Warn, msg, args...) }
func (r raftLog) Error(msg string, args ...any)       { r.Log(hclog.Error, msg, args...) }
func (r raftLog) With(args ...any) hclog.Logger       { r.log = r.log.With(args...); return r }
func (r raftLog) Named(name string) hclog.Logger      { r.name += "." + name; return r }
func (r raftLog) ResetNamed(name string) hclog.Logger { r.name = name; return r }
func (r raftLog) Name() string                        { return r.name }
func (r raftLog) IsDebug() bool                       { return r.on(hclog.Debug) }
func (r raftLog) IsInfo() bool                        { return r.on(hclog.Info) }
func (r raftLog) IsTrace() bool                       { return r.on(hclog.Trace) }
func (r raftLog) on(level hclog.Level) bool {
	return r.log.Enabled(context.Background(), levels[level])
}
