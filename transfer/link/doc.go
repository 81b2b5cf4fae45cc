// Package link is drover's only wire: SSH connections between daemons and from operators to daemons, on which every use
// has its own channel type. It authenticates both ends with the cluster's certificates, operators also by their own keys,
// joining machines by a token, and hands channels out as net.Conn to whoever listens for their type.
//
// It knows no protocol that runs on a channel, decides nothing about who may do what (each Listener brings its own rule)
// and never listens by itself: Serve is given a net.Listener. An unauthenticated peer has one of a bounded number of places, for at
// most Options.HandshakeTimeout and until somebody else needs it, and learns nothing.
//
// Start reading with Server (server.go, auth.go) and Pool (pool.go, credentials.go); Conn is what both hand out.
package link

// Channel types.
const (
	ChannelAPI   = "drover-api"   // HTTP
	ChannelRaft  = "drover-raft"  // hashicorp/raft's transport
	ChannelPages = "drover-pages" // the page stream, source worker to target worker
)
