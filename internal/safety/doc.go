// Package safety is drover's promises as functions over observed facts. Each takes what somebody has seen, a state machine, a simulator, a
// witness beside real hosts, and answers with nil or with the rule that is broken and how.
//
// The rules know nothing of how a migration goes: what they hold a protocol to, they do not share with it.
package safety
