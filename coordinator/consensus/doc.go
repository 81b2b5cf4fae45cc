// Package consensus replicates the record: a Raft node whose log is on disk and whose peers are reached over links that the
// caller gives (SSH channels in the daemon, buffers in memory in tests).
//
// It decides nothing and knows no migration: a command goes in by Propose, the record comes out by Read and Fresh, and Changed
// says when to look again. Start at node.go; fsm.go is the adapter between Raft and the record.
//
// A node that went on with less than it had acknowledged could vote a verdict away. So everything on its disk has a checksum (store.go,
// snapshots.go), all of it is read before anything starts, and what is torn, changed or gone is an error that names the file (verify.go):
// the node is then taken out of the cluster and joins it again, by another one's record. What bbolt keeps beside the values (the list of free
// pages) has no checksum and is not trusted: each start copies the values into a fresh file.
package consensus
