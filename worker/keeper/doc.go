// Package keeper is the small process that owns one tree: `drover keeper`, a child of the worker in a session of its own.
//
// A keeper starts its tree or watches one that was there, is the parent of what it restores, reaps, records how the tree
// ended, drives CRIU for it and keeps CRIU's holds. It outlives the worker, which talks to it through a unix socket; that a
// worker disconnects is never an answer to anything. If a keeper dies its tree lives on, and the worker starts another that
// watches the tree.
//
// It never decides anything, knows no other host and no migration, and keeps nothing on disk but its tree's state in its
// run directory. The worker's side is Client and Spawn; the process's side starts in Main; protocol.go is what they say to
// each other; setup.go is what becomes the tree.
package keeper
