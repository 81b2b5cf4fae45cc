// Package workloads is what a host knows of its workloads and what it can do with them: start, adopt, stop, look at, lend to a
// migration, make a place for one that comes.
//
// It owns the records in the state directory, one keeper, cgroup, network namespace and output directory for each workload,
// and the carrying of their files. It never talks to another host and never decides who owns a tree: it only refuses what is
// older than the newest epoch it has seen. It implements worker/tree's Host, Lent and Shell.
//
// Start with Host; record.go says what is remembered, place.go what stands on the host for a tree, lend.go and reserve.go are
// the source's and the target's side of a migration, with carry.go and receive.go for the files.
package workloads
