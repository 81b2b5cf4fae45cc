// Package record is the replicated record: hosts, workloads and who owns them, migrations and their verdicts, plans, tokens,
// operators, and an audit trail, as a pure state machine.
//
// State.Apply is the only way to change it. It is deterministic: no clock, no randomness, no order of a map, no I/O; commands
// carry the time and the ids. Every change is a compare-and-set: a command names what it expects, and one that finds something
// else changes nothing and is an errs.Conflict. Migrations go from phase to phase by migration.Next alone.
//
// The package knows neither Raft nor hosts: coordinator/consensus replicates it, coordinator/drive acts on it.
// Start at state.go, then command.go, then migrations.go.
package record
