package transfer

// Content is pages of a stream's store that follow each other there, or pages of zeros. What stands in the store is never changed once
// it was handed over, and stays until Receiver.Close, also after the stream has ended or failed.
type Content struct {
	store *Store
	first uint32 // slot; 0 is zeros, whatever follows
	pages int
}

// Pages is how many, 1 to MaxRun.
func (c Content) Pages() int { return c.pages }

// Offset is where in the store's files it begins (Store.Files), in bytes; ok is false for zeros, which stand nowhere.
func (c Content) Offset() (at uint64, ok bool) { return uint64(c.first) * PageSize, c.first != 0 }

// Bytes is the pages, not to be written to. It may be called during the call that handed them over, and they are valid until the next.
func (c Content) Bytes() ([]byte, error) {
	if c.first == 0 {
		return zeros[:c.pages*PageSize], nil
	}
	return c.store.run(c.first, c.pages)
}
