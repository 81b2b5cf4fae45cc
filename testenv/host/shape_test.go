package host

import (
	"testing"
	"time"
)

// frame is a virtio-net header and a frame of that size behind it.
func frame(size, segment, protocols int) []byte {
	f := make([]byte, headerSize+size)
	if segment > 0 {
		f[1] = 1 // TCP over IPv4
		f[2], f[3] = byte(protocols), byte(protocols>>8)
		f[4], f[5] = byte(segment), byte(segment>>8)
	}
	return f
}

func TestBatchIsWorthItsFrames(t *testing.T) {
	for _, c := range []struct {
		name string
		got  int
		want int
	}{
		{"one frame", wireBytes(frame(1514, 0, 0)), 1514 + 24},
		{"a batch of ten", wireBytes(frame(66+14480, 1448, 66)), 10 * (66 + 1448 + 24)},
		{"a batch with a short end", wireBytes(frame(66+1500, 1448, 66)), (66 + 1448 + 24) + (66 + 52 + 24)},
		{"a header that lies", wireBytes(frame(40, 1448, 66)), 40 + 24},
	} {
		if c.got != c.want {
			t.Errorf("%s is worth %d bytes, want %d", c.name, c.got, c.want)
		}
	}
	if got := (Shape{Rate: Gbit}).airtime(frame(1226, 0, 0)); got != 10*time.Microsecond {
		t.Errorf("1250 bytes take %s at 1 Gbit/s", got)
	}
}

func TestShapeRefusesNonsense(t *testing.T) {
	for _, s := range []Shape{{Rate: -1}, {Delay: -time.Second}, {Loss: -0.1}, {Loss: 1.1}} {
		if s.check() == nil {
			t.Errorf("%+v is taken", s)
		}
	}
}
