package workload

// besides is what CRIU and a session need for themselves, in bytes.
const besides = 64 << 20

// MemoryNeed is how much free memory, in bytes, a host must have to take a tree with that resident set: while it is rebuilt its
// pages exist twice, in the store and in the tree, and CRIU and the session need some for themselves.
func MemoryNeed(rss int64) int64 { return TreeNeed(rss) + StoreNeed(rss) }

// TreeNeed is the part of MemoryNeed that nothing but memory will do for.
func TreeNeed(rss int64) int64 { return max(rss, 0) + besides }

// StoreNeed is the part of MemoryNeed that is the store: it may have a limit of its own, or stand on a disk.
func StoreNeed(rss int64) int64 { return max(rss, 0) }

// Room is what a host has free for trees that come, in bytes.
type Room struct {
	Memory int64 // for trees and stores
	Store  int64 // as much of it may hold stores
	Spill  int64 // of a disk, for what of a store has no room in memory; 0 if a store may not be on a disk
}

// Split says how much of the store of a tree with that resident set would stand in memory and how much on the disk; ok is false if it
// does not fit, or the tree does not.
func (r Room) Split(rss int64) (memory, disk int64, ok bool) {
	left := r.Memory - TreeNeed(rss)
	memory = min(StoreNeed(rss), max(r.Store, 0), max(left, 0))
	disk = StoreNeed(rss) - memory
	return memory, disk, left >= 0 && (disk == 0 || disk <= r.Spill)
}
