package link

import (
	"net"
	"sync"
)

// doors counts the connections that are not yet authenticated. One address may take a quarter of the places, so that a
// single peer that opens and says nothing does not keep the others out.
type doors struct {
	mu    sync.Mutex
	limit int
	all   int
	from  map[string]int
}

func newDoors(limit int) *doors { return &doors{limit: limit, from: map[string]int{}} }

// enter takes a place; leave gives it back and may be called more than once.
func (d *doors) enter(remote net.Addr) (leave func(), ok bool) {
	host, _, err := net.SplitHostPort(remote.String())
	if err != nil {
		host = remote.String()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.all >= d.limit || d.from[host] >= max(1, d.limit/4) {
		return nil, false
	}
	d.all++
	d.from[host]++
	return sync.OnceFunc(func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.all--
		if d.from[host]--; d.from[host] == 0 {
			delete(d.from, host)
		}
	}), true
}
