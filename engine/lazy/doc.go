// Package lazy puts a tree's memory in place beside a restore of it: CRIU keeps the state, drover carries the memory.
//
// A lazy dump (engine.DumpRequest.Lazy) leaves private anonymous memory out of the images; track.OpenStill reads it from the
// held tree. At the target a Filler listens in the images' directory before the lazy restore begins, and gets a userfaultfd of
// every process while CRIU rebuilds them. Once the restore is held, and the Filler has seen that it has every page, it vouches
// for the memory: from then on the tree may be released. It puts the pages in place one after the other, those that the tree
// asks for first, and follows what the tree does to its memory meanwhile (fork, munmap, mremap, madvise). Nothing is fetched
// from anywhere then: all pages are on this host.
//
// Until the last page is in place two processes hold the userfaultfds: the Filler's and the engine's, whose end is Relay. A
// Filler that dies lets no process read zeros in place of its memory: the Relay still holds the userfaultfds, so that whoever
// asks for a page waits, and has the tree killed before it lets go of them.
//
// It never decides whether a restore is committed or aborted, and knows neither where pages come from nor how they came: that
// is Memory's. It takes the place of CRIU's own lazy-pages daemon (criu/uffd.c). Start with Filler in filler.go; space.go is
// one process, relay.go the engine's end.
package lazy
