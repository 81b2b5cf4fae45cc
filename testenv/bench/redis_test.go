package bench

import (
	"net"
	"testing"

	"drover/testenv/host"
	"drover/testenv/host/hosttest"
)

// dialRedis connects once the redis at the address listens.
func dialRedis(b *testing.B, client *host.Host, address string) net.Conn {
	b.Helper()
	var conn net.Conn
	hosttest.Eventually(b, "redis listens", func() (ok bool) {
		var err error
		conn, err = client.Dial(b.Context(), "tcp", address+":6379")
		return err == nil
	})
	return conn
}
