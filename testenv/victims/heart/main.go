// Command heart beats, for testenv/witness: each beat is a line with the host's name, a counter and the monotonic clock, appended to a file that hosts
// share (-file) and sent to a witness (-to), whichever are given. The host's name is read at every beat from -host, a file that differs from host to
// host: nothing in the program's memory says where it runs.
package main

import (
	"errors"
	"flag"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"drover/testenv/victims/vital"
	"drover/testenv/witness"
)

func main() {
	file := flag.String("file", "", "append beats to it")
	to := flag.String("to", "", "send beats to this UDP address")
	host := flag.String("host", "/etc/hostname", "file with the host's name")
	every := flag.Duration("every", 10*time.Millisecond, "between two beats")
	lasts := flag.Duration("for", 0, "how long to beat; 0 is until a signal")
	flag.Parse()
	vital.Exit(beat(*file, *to, *host, *every, *lasts), 0)
}

func beat(file, to, host string, every, lasts time.Duration) error {
	var out *os.File
	var conn net.Conn
	var err error
	if file != "" {
		if out, err = os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644); err != nil {
			return err
		}
		defer out.Close()
	}
	if to != "" {
		if conn, err = net.Dial("udp", to); err != nil {
			return err
		}
		defer conn.Close()
	}
	if out == nil && conn == nil {
		return errors.New("nobody is to see it: give -file or -to")
	}
	ctx, stop := vital.Until(lasts)
	defer stop()
	for n := uint64(1); ctx.Err() == nil; n++ {
		name, err := os.ReadFile(host)
		if err != nil {
			return err
		}
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
			return err
		}
		line := witness.Beat{Host: strings.TrimSpace(string(name)), Count: n, Clock: time.Duration(now.Nano())}.String()
		if out != nil {
			if _, err := out.WriteString(line + "\n"); err != nil {
				return err
			}
		}
		if conn != nil { // a witness that cannot be reached for a while misses beats: that is for it to judge
			_, _ = conn.Write([]byte(line))
		}
		time.Sleep(every)
	}
	return nil
}
