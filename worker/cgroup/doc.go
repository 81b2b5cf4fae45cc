// Package cgroup makes, freezes, kills and removes the cgroup v2 directory a tree lives in.
//
// It needs no controller: a group is used as a handle on exactly the processes of one tree, one that cannot be escaped by
// forking, that freezes and kills all of them at once and that survives drover's own death. It sets no limit but for a Throttle,
// whose use undoes it, and never looks at cgroup v1. Start with Group.
package cgroup
