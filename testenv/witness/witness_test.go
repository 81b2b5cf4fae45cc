package witness

import (
	"net"
	"strings"
	"testing"
	"time"
)

func beats(lines string) *Witness {
	w := &Witness{InOrder: true}
	if err := w.Read(strings.NewReader(lines)); err != nil {
		w.err = err
	}
	return w
}

func TestWhatAWitnessSees(t *testing.T) {
	for _, c := range []struct{ what, lines, wrong string }{
		{"a tree that stays", "a 1 10\na 2 20\na 3 30\n", ""},
		{"a tree that moves there and back", "a 1 10\nb 2 7\nb 3 17\na 4 90\n", ""},
		{"a last line that is being written", "a 1 10\na 2", ""},
		{"two writers at once", "a 1 10\nb 2 7\na 2 20\n", "two copies run: on "},
		{"a source that runs on", "a 1 10\na 2 20\nb 3 7\na 3 30\nb 4 17\n", "two copies run: on "},
		{"a copy from before", "a 1 10\na 2 20\na 2 30\n", "the counter went back from 2 to 2 on a"},
		{"a copy from long before, elsewhere", "a 5 10\na 6 20\nb 5 3\n", "two copies run: on "},
		{"beats that are lost", "a 1 10\nb 4 7\n", "the counter went from 1 to 4"},
		{"what is no beat", "hello\n", "is no beat"},
	} {
		err := beats(c.lines).Err()
		if (err == nil) != (c.wrong == "") || err != nil && !strings.Contains(err.Error(), c.wrong) {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}

func TestAFailureIsToldWithTheBeatsThatLedThere(t *testing.T) {
	err := beats("a 1 10\na 2 20\na 1 30\n").Err()
	if err == nil || !strings.Contains(err.Error(), "a 1 10\n  a 2 20\n  a 1 30") {
		t.Errorf("it says %v", err)
	}
}

func TestPacketsMayOvertakeEachOther(t *testing.T) {
	w := &Witness{}
	for _, line := range []string{"a 1 10", "a 3 30", "a 2 20", "b 4 5", "b 6 25", "b 5 15"} {
		b, err := Parse(line)
		if err != nil {
			t.Fatal(err)
		}
		w.See(b)
	}
	if err := w.Err(); err != nil {
		t.Error(err)
	}
}

func TestAWitnessListens(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w, heard := &Witness{}, make(chan error, 1)
	go func() { heard <- w.Listen(conn) }()
	out, err := net.Dial("udp", conn.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	begun := time.Now()
	for w.Last().Count < 3 {
		if time.Since(begun) > time.Minute {
			t.Fatal("no beat arrives")
		}
		n := w.Last().Count
		if _, err := out.Write([]byte(Beat{Host: "a", Count: n + 1, Clock: time.Since(begun)}.String())); err != nil {
			t.Fatal(err)
		}
		for w.Last().Count == n && time.Since(begun) < time.Minute {
			<-time.After(time.Millisecond)
		}
	}
	conn.Close()
	if err := <-heard; err != nil {
		t.Error(err)
	}
	if err := w.End(time.Now(), time.Minute); err != nil {
		t.Error(err)
	}
	if err := w.End(time.Now().Add(time.Hour), time.Minute); err == nil {
		t.Error("a tree that is silent at the end passes for alive")
	}
}
