// Package transfer carries the memory and files of one migration from its source to its target: the page stream.
//
// The stream is content-addressed from the source's side. The target keeps a Store of numbered slots, one page each; the
// sender alone decides what stands in which slot, because it keeps the table of digests and of which address last held
// which slot. While the tree runs, rounds fill slots (PUT). In the final pass, with the tree frozen, addresses are mapped to
// slots (MAP), so that a page that has not changed since a round, or that exists anywhere else in the tree, costs two or
// three bytes, a zero page one; what is new is PUT just before it is mapped. The target assembles each space while it
// arrives. Both ends compute the same root digest over every page's place and content and every file; the sender's last
// word is its own, the target's answer (staged) is that both are equal.
//
// A page that has changed in part is put as a patch: what its address held before, with the pieces replaced whose hashes
// differ. The sender keeps those hashes and no pages; the target checks the digest of the page that it has made.
//
// A target may have pages of an earlier visit of the tree (Kept): they fill its first slots, and it tells of them by digest before the
// first round (HAVE). The sender's table then knows them as if it had put them there. See docs/adr/0019.
//
// Frames (see Frames, the table) are bounded, carry a CRC, and are compressed one by one if that makes them smaller. Data
// flows one way, the target's STATE the other: how many frames it has applied, which bounds what is in flight to Window
// bytes and lets a broken connection be replaced, the frames after the last applied one being sent again. A stream over a far
// and fast link has several connections, its lanes: each frame goes over whichever can take it, and the target puts them back
// into their order (merge.go).
//
// The package knows nothing of CRIU, engines, hosts or SSH: a stream runs over any io.ReadWriteCloser, a Space is a pair of
// numbers, files' kinds and metadata are opaque. It decides nothing about when a round ends or a tree freezes.
//
// Memory. A sender holds at most some 36 MiB in buffers: Window bytes of frames not yet acknowledged, and runs being hashed
// and batches being compressed. With what the garbage collector lets lie, Go's memory grows by at most 80 MiB (a test holds
// it to that), whatever the link and the tree. Beside that, outside Go's heap, its table takes some 84 bytes a slot in use,
// 2.0 % of the tree. A sender that has ended keeps its figures only. A receiver uses at most about 12 MiB of buffers, a
// window's bytes of frames that wait for one of another lane, 17 bytes a slot in use, and the store: PageSize bytes a slot in
// use, outside Go's heap, given back at the end. Room bounds that, and says whether the rest may stand on a disk.
//
// Start reading with Frames (frame.go), then sender.go and receiver.go side by side, and lanes.go.
package transfer
