// Package consensus replicates the record: a Raft node whose log is on disk and whose peers are reached over links that the
// caller gives (SSH channels in the daemon, buffers in memory in tests).
//
// It decides nothing and knows no migration: a command goes in by Propose, the record comes out by Read and Fresh, and Changed
// says when to look again. Start at node.go; fsm.go is the adapter between Raft and the record.
package consensus
