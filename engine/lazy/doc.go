// Package lazy puts a tree's memory in place while a restore of it is held: CRIU keeps the state, drover carries the memory.
//
// A lazy dump (engine.DumpRequest.Lazy) leaves private anonymous memory out of the images; track.OpenStill reads it from the
// held tree. At the target a Filler listens in the images' directory before the lazy restore begins, gets a userfaultfd of every
// process while CRIU rebuilds them, answers the few faults that the rebuilding meets, and puts every page in place once the
// restore is held (Fill). No userfaultfd is left when the tree runs, and no page is fetched from anywhere then.
//
// It never decides whether a restore is committed or aborted, and knows neither where pages come from nor how they are stored:
// that is Memory's. It takes the place of CRIU's own lazy-pages daemon (criu/uffd.c). Start with Filler in filler.go; relay.go
// is the engine's end of the conversation.
package lazy
