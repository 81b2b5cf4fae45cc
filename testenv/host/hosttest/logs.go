package hosttest

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"drover/testenv/host"
)

// told are the folders with a host's logs, and how much of the end of each log is told, in bytes: of a daemon some hundred lines,
// of CRIU's wordy ones the last few.
var told = []struct {
	top  string
	tail int64
}{
	{"/var/log", 64 << 10},
	{"/run/drover", 4 << 10},
}

// TellIfFailed has the test, if it fails, print the end of every log on the bed's hosts before they go: of daemons, keepers and
// CRIU. Call it when the test has seen to the bed's end, before it adds clean-up of its own.
func TellIfFailed(t testing.TB, bed *host.Bed) {
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(logs(bed))
		}
	})
}

// logs is the end of every log on the hosts that are up.
func logs(bed *host.Bed) string {
	var b strings.Builder
	for _, h := range bed.Hosts() {
		if !h.Up() {
			fmt.Fprintf(&b, "--- %s is down\n", h.Name)
			continue
		}
		for _, f := range told {
			for _, file := range logsBelow(h.Path(f.top)) {
				inside := filepath.Join(f.top, strings.TrimPrefix(file, h.Path(f.top)))
				fmt.Fprintf(&b, "--- %s:%s\n%s\n", h.Name, inside, endOf(file, f.tail))
			}
		}
	}
	return b.String()
}

// logsBelow are the files of a directory and those below it that are logs by their names and not empty.
func logsBelow(top string) (files []string) {
	_ = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		// What comes and goes meanwhile is not missed.
		if err == nil && d.Type().IsRegular() && (d.Name() == "log" || filepath.Ext(d.Name()) == ".log") {
			if info, err := d.Info(); err == nil && info.Size() > 0 {
				files = append(files, path)
			}
		}
		return nil
	})
	return files
}

// endOf is the end of a file, at most tail bytes, in whole lines.
func endOf(path string, tail int64) string {
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > tail {
		_, _ = f.Seek(-tail, io.SeekEnd)
	}
	text, err := io.ReadAll(io.LimitReader(f, tail))
	if err != nil {
		return err.Error()
	}
	if _, whole, ok := strings.Cut(string(text), "\n"); ok && int64(len(text)) == tail {
		return "…\n" + strings.TrimSpace(whole)
	}
	return strings.TrimSpace(string(text))
}
