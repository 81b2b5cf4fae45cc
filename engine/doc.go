// Package engine is checkpoint and restore of one process tree on one host: the Engine interface with its contract, and the
// errors its implementations return.
//
// It owns what happens between drover and CRIU. It never talks to another host, never decides who owns a tree, and knows
// neither workloads nor migrations. Start with Engine; engine/criu is the real one, engine/fake a deterministic model of it,
// engine/enginetest the suite both pass, engine/image reads and writes CRIU's files and its page-server protocol, engine/track
// finds the pages that changed while a tree runs, engine/lazy puts memory that was carried beside the images into a held tree.
package engine
