// Package drive carries migrations from ADMITTED to their end. Only the leader does, and only from what the record says: a new
// leader's drivers ask both hosts how they stand and go on from there.
//
// Deciding and acting are apart. Next (next.go) looks at a View — the record, what both hosts last said, the time — and says
// what is to be done; it is pure, and the whole protocol from the coordinator's side. driver.go does it, one call a host at a
// time, and feeds what comes back into the View. Set (set.go) keeps one driver for each migration that is under way.
//
// The package never touches a tree, and never decides by a local timer: what a deadline ends, it ends by an entry in the log.
package drive
