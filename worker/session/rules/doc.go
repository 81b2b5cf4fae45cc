// Package rules is what a session does, and in which order, as data: the same rules that worker/session carries out on a real
// host are carried out on a model by the simulator (testenv/sim), with a crash between any two of their ops.
//
// A Session is all that decisions depend on. Given one and what has happened (an opening, a verdict, a confirmation, a restart
// with a journal), a function here answers with a Program: ops, each one act on the host or one record of the journal. That the
// journal is written before the act, and a held tree let go only after a verdict, is the order of ops in programs.go; what is
// done when an op fails is in else.go; what a verdict may do in verdict.go; what a journal means in past.go and takeup.go.
//
// The package does no I/O, reads no clock and starts no goroutine.
package rules
