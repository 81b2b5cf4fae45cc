package network

import (
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
)

// A datagram that is dropped where it goes out fails the call that sends it: EPERM, whichever hook drops it before the device (nf_hook_slow). A
// connection tries again by itself; a program that sends datagrams may take that error for the end. So the fence queues datagrams that go out for
// a program that is not there, which loses them: the call succeeds, as it does where the network loses one.
//
// A program that reads this queue would have to be told to, by its number, in the namespace concerned; what it lets go on is dropped by
// the chain "last".
const nobodysQueue = 0xc114

var (
	queued = []expr.Any{&expr.Queue{Num: nobodysQueue}} // nft_queue
	// queuedByTarget is for kernels that have queues only as an extension of iptables': xt_NFQUEUE, of which revision 0 has the number alone, in a word.
	queuedByTarget = []expr.Any{&expr.Target{Name: "NFQUEUE", Info: queueNumber()}}
)

func queueNumber() *xt.Unknown {
	n := make(xt.Unknown, 8)
	copy(n, binaryutil.NativeEndian.PutUint16(nobodysQueue))
	return &n
}
