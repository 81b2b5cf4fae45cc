// Package sim runs migrations on a model of a cluster, one schedule after the other: which message arrives, comes late, twice or never, which
// worker, keeper, CRIU, filler, host or leader dies between or within which two steps, whose clock jumps, which record of a journal is torn.
// A schedule follows from its seed alone, or from a tape of choices, to the last step.
//
// What it runs is what production runs: record.State.Apply, drive.Next with View.Answered and Hear, the session's programs of
// worker/session/rules, journal.Parse. What it models is what those act on: the network (net.go), the coordinators' log and leaders (leader.go), a
// worker that carries programs out op by op (worker.go), and a host with its keeper, CRIU and tree (host.go, acts.go). After every op it
// holds what can be seen to internal/safety (check.go). When chaos is over everything is mended, and every migration must end.
//
// All choices go through choices.draw, where 0 is what happens when nothing goes wrong; so a failing tape is shrunk (shrink.go) by setting
// choices to 0 and leaving some out, until what is left is a short trace. Tapes in testdata are replayed as tests.
//
// The log is one ordered list. A leader that was deposed still acts on the record as it last saw it, and may have a proposal taken or dropped, but
// appends nothing once the next leads: that is Raft's promise, and is not tried here but by coordinator's tests on real Raft.
//
// Start with world.go.
package sim
