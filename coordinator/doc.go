// Package coordinator is the daemon that decides: it keeps the replicated record with its peers, drives migrations and plans
// while it leads, and answers the cluster's API (coordinator/api) for operators and workers.
//
// It never touches a tree and no page goes through it. What it knows for good is in the record; what only the leader knows
// (who has been heard of, how a copy progresses) dies with the lead and is learned anew.
//
// Start at coordinator.go (New, Run), then leader.go (what the leader does), serve.go (who may ask, and who answers) and
// migrate.go (how a migration is admitted). coordinator/drive has the protocol.
package coordinator
