package rules

// Op is one act on a host, or one record of its journal. Every act may be repeated: a program that was broken off is begun anew.
type Op uint8

const (
	_ Op = iota

	// The journal. Each returns when the record is on the disk, but WriteFrozen.
	WriteOpen      // a session is about to be opened
	WriteOpened    //
	WriteEnded     // the opening failed, and nothing is left of it
	WriteThrottle  // time is about to be taken from the tree; within Copy
	WriteThrottled // and is not any more
	WriteFreeze    // the tree is about to be frozen
	WriteThawed    // it could not be, and runs
	WriteFrozen    // it stands still: begun here, on the disk after AwaitFrozen
	AwaitFrozen    //
	WriteHold      // the tree is about to be rebuilt
	WriteHeld      // it has been, and waits
	WriteVerdict   // a verdict has come
	WriteRuled     // and has been acted on
	WriteConfirm   // the end has been confirmed
	WriteConfirmed //

	// What coordinators are told, in the session's state.
	TellOpen
	TellFrozen
	TellStaged
	TellHeld
	TellVerdict
	TellReleased
	TellUndone
	TellDone
	TellFailed

	// Acts on both sides.
	EndWork    // ends what the session does by itself, and waits until it is over
	AwaitWork  // only waits
	DropImages // removes the images
	Deny       // fails: the verdict cannot be carried out here

	// Acts of a source.
	Lend        // borrows the tree
	Connect     // finds a tracker, opens the stream
	Copy        // rounds, while the tree runs, until it may freeze
	Dump        // freezes the tree, writes its state, hides its address; it is held by CRIU and by its cgroup
	SendRest    // sends all but the last word
	Finish      // the last word: the target has all, and says so
	StopCopying // ends stream and tracker; the tree does not notice
	AnswerNo    // to CRIU, if it holds the tree, which undoes the dump: the tree runs
	Freeze      // the cgroup
	Thaw        //
	Fence       // hides the tree's address
	Unfence     //
	Return      // the tree is its host's again
	EndTree     // to CRIU: yes, and the tree is given its final state
	Kill        // whatever is in the cgroup
	Leave       // the workload lives elsewhere

	// Acts of a target.
	Reserve  // makes a place
	Receive  // takes the stream in, to its last word
	Restore  // rebuilds the tree, which waits in CRIU
	VouchFor // waits until its memory is in place, or what fills it in has vouched for it
	LetRun   // answers yes to CRIU: the tree runs
	Accept   // it is this host's workload; its address is announced
	SeeAlive // looks whether it has lived until now, before anybody is told that it does; kills what a crash has left of it
	Refuse   // answers no to CRIU, which kills the copy
	Discard  // kills and removes whatever is left of the copy
	Mourn    // takes note that a tree that may have run is dead
)

var names = [...]string{
	WriteOpen: "journal: about to open", WriteOpened: "journal: open", WriteEnded: "journal: not opened",
	WriteThrottle: "journal: about to throttle", WriteThrottled: "journal: not throttled", WriteFreeze: "journal: about to freeze", WriteThawed: "journal: runs again", WriteFrozen: "begin journal: frozen", AwaitFrozen: "await journal: frozen",
	WriteHold: "journal: about to rebuild", WriteHeld: "journal: held", WriteVerdict: "journal: verdict", WriteRuled: "journal: verdict acted on",
	WriteConfirm: "journal: about to end", WriteConfirmed: "journal: ended",
	TellOpen: "say open", TellFrozen: "say frozen", TellStaged: "say staged", TellHeld: "say held", TellVerdict: "say verdict",
	TellReleased: "say released", TellUndone: "say undone", TellDone: "say done", TellFailed: "say failed",
	EndWork: "end the work", AwaitWork: "await the work", DropImages: "drop images", Deny: "deny",
	Lend: "borrow the tree", Connect: "connect", Copy: "copy in rounds", Dump: "dump and hold", SendRest: "send the rest", Finish: "send the last word",
	StopCopying: "stop copying", AnswerNo: "answer no to CRIU", Freeze: "freeze the cgroup", Thaw: "thaw the cgroup", Fence: "fence", Unfence: "unfence",
	Return: "give the tree back", EndTree: "answer yes to CRIU: final state", Kill: "kill the cgroup", Leave: "leave",
	Reserve: "make a place", Receive: "receive", Restore: "rebuild and hold", VouchFor: "memory vouched for", LetRun: "answer yes to CRIU: runs",
	Accept: "announce the address", SeeAlive: "see whether it lives", Refuse: "answer no to CRIU", Discard: "kill and remove the copy", Mourn: "note that it is dead",
}

// Ops lists every op.
func Ops() (all []Op) {
	for op := WriteOpen; op <= Mourn; op++ {
		all = append(all, op)
	}
	return all
}

func (op Op) String() string { return names[op] }

// Writes says whether op is a record of the journal. After one has failed nothing more may be done.
func (op Op) Writes() bool { return op >= WriteOpen && op <= WriteConfirmed }

// Program is ops in their order. The first that fails ends it; Session.Else says what then.
type Program []Op
