package workload

// MemoryNeed is how much free memory, in bytes, a host must have to take a tree with that resident set: while it is rebuilt its
// pages exist twice, in the images and in the tree, and CRIU and the session need some for themselves.
func MemoryNeed(rss int64) int64 {
	const besides = 64 << 20
	return 2*max(rss, 0) + besides
}
