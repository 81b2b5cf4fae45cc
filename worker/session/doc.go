// Package session is one host's part in a migration: source.go and target.go, side by side, with the same step names. It is
// the only place where a tree's image meets a page stream.
//
// A session works by itself as far as it may (a source up to the held tree and the last byte sent, a target up to the
// rebuilt tree that waits) and then does nothing until the verdict comes. Before each act that must not be forgotten it
// writes a step into the journal, so that a worker that comes back takes every session up where it was.
//
// It never decides: no timer, no lost connection and no silence ever lets a held tree run. What is done and in which order, for a
// verdict, a confirmation, a failure or a restart, is data in the package rules, which the simulator carries out too; steps.go carries
// it out here. When to cut over is in policy.go, which is pure. Registry holds the sessions of a host and answers the calls of
// worker/api that concern them.
package session
