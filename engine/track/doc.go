// Package track finds the pages of a running tree that may have changed since the last look.
//
// It reads other processes' memory and, for the wp tracker, has the kernel watch it; it neither writes to it nor decides what is done
// with what it finds. Three trackers: hash reads everything and works anywhere; softdirty lets CRIU do its own rounds; wp is told by the
// kernel. Start with Tracker and Exact (track.go), then wp.go, watch.go for one process's part of it, and inject for how a
// process comes to be watched. ADR 0006 says why it is done so.
package track
