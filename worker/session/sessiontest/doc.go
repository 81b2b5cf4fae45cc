// Package sessiontest is a model of hosts with trees, for tests of whatever drives sessions: World knows every copy of every
// tree and notices the instant at which two copies of one could run, Host is a tree.Host whose keepers outlive whoever uses
// it, and any step can be made to fail or to wait by its name. No process, cgroup or network is involved.
//
// Start with NewWorld, World.Host and Host.Run.
package sessiontest
