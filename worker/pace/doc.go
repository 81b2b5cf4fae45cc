// Package pace keeps what copying takes of a host's processors to what its owner allows: a share of them, and a lower priority.
//
// Both count only while trees are copied that run. In a cut-over a tree stands still: nobody waits then, and this process has the priority
// again that it was started with. Without limits it does nothing. CPU is the share, Nice the priority.
package pace
