// Package criu is the engine that drives CRIU 4.2 or later through `criu swrk`.
//
// It owns the conversation with CRIU, what CRIU leaves behind when it dies, and the words its log is explained in. It knows no
// workloads and no network but CRIU's own lock rules. Start with Engine.Dump in dump.go and Engine.Restore in restore.go, which
// stand side by side; swrk.go is the conversation, explain.go the log.
//
// A process that calls Restore should be a child subreaper (prctl PR_SET_CHILD_SUBREAPER): a restored root becomes its child
// when CRIU has gone.
package criu
