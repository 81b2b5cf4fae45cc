// Package migration holds drover's words as types: phases, events, verdicts, epochs and final states, and the one table of
// how a migration goes from phase to phase.
//
// The coordinator's state machine, the simulator and the diagram in docs/protocol.md all read Table. Start reading there.
// The package never does I/O, reads no clock and starts no goroutine.
package migration
