// Package fake is a deterministic model of an engine and of the trees on one host, for tests that want no root and no CRIU.
//
// A tree of the model has processes that work: every Tick, each one that runs writes one page whose content follows from how
// much it has worked. A tree that lost, repeated or mixed up a page is found out by its own memory (Engine.Verify, and every
// Restore). The model speaks the page-server protocol and writes image directories that image.Check accepts. It keeps
// engine.Engine's contract; engine/enginetest holds it and the real engine to that.
//
// It starts no goroutine that outlives a call and draws no random number. Start with New, Engine.Start and
// Engine.Tick.
package fake
