package link

import (
	"container/list"
	"net"
	"sync"
)

// doors are the places for connections that are not yet authenticated. Whoever comes gets one; when there is none left, the connection
// that has waited longest loses its own: to be authenticated takes milliseconds, so that who waits is silent, slow or a stranger.
// One address has a quarter of the places, so that a crowd from one takes none from the others.
type doors struct {
	mu    sync.Mutex
	limit int
	all   *list.List // of *waiting, the oldest first
	from  map[string]*list.List
}

// waiting is a connection that has a place.
type waiting struct {
	host      string
	hangUp    func()
	all, from *list.Element
}

func newDoors(limit int) *doors {
	return &doors{limit: limit, all: list.New(), from: map[string]*list.List{}}
}

// enter takes a place, for which another connection may have been hung up on: crowded says so. leave gives it back and may be called
// more than once.
func (d *doors) enter(remote net.Addr, hangUp func()) (leave func(), crowded bool) {
	host, _, err := net.SplitHostPort(remote.String())
	if err != nil {
		host = remote.String()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	same := d.from[host]
	switch {
	case same != nil && same.Len() >= max(1, d.limit/4):
		d.evict(same.Front())
		crowded = true
	case d.all.Len() >= d.limit:
		d.evict(d.all.Front())
		crowded = true
	}
	if same = d.from[host]; same == nil {
		same = list.New()
		d.from[host] = same
	}
	w := &waiting{host: host, hangUp: hangUp}
	w.all, w.from = d.all.PushBack(w), same.PushBack(w)
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.remove(w)
	}, crowded
}

// evict hangs up on one that waits. The caller holds mu.
func (d *doors) evict(e *list.Element) {
	w := e.Value.(*waiting)
	d.remove(w)
	w.hangUp()
}

func (d *doors) remove(w *waiting) {
	if w.all == nil {
		return
	}
	d.all.Remove(w.all)
	same := d.from[w.host]
	same.Remove(w.from)
	if same.Len() == 0 {
		delete(d.from, w.host)
	}
	w.all, w.from = nil, nil
}
