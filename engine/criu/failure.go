package criu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"

	"github.com/checkpoint-restore/go-criu/v8/rpc"
	"golang.org/x/sys/unix"

	"drover/internal/errs"
)

// maxLog bounds how much of the end of a log is read; the cause of a failure stands near the end.
const maxLog = 1 << 20

// failure makes the error of an operation that CRIU did not finish: from its log if that says why, else from its answer.
func failure(what string, images *os.File, logFile string, resp *rpc.CriuResp, err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return errs.New(errs.Timeout, "%s: CRIU did not finish in time: %w", what, err).WithNext("try again, or allow it more time; the tree was not changed")
	}
	if errors.Is(err, context.Canceled) {
		return errs.New(errs.Aborted, "%s: given up: %w", what, err)
	}
	log := readTail(inDir(images, logFile))
	c := Explain(log)
	if c == nil && full(images) { // the log could not be written to its end either
		c = Explain("Error (log): No space left on device")
	}
	if c != nil {
		return errs.New(c.Kind, "%s: %s: %w", what, c.Why, c.Is).WithNext("%s", c.Next)
	}
	why := lastErrors(log)
	if why == "" {
		why = lastErrors("Error (): " + resp.GetCrErrmsg())
	}
	if err == nil && why == "" {
		why = fmt.Sprintf("errno %d and no word of why", resp.GetCrErrno())
	}
	switch {
	case err == nil:
		return errs.New(errs.Failed, "%s: CRIU: %s", what, why).WithNext("%s", unexplained)
	case why == "":
		return errs.New(errs.Failed, "%s: CRIU: %w", what, err).WithNext("%s", unexplained)
	}
	return errs.New(errs.Failed, "%s: CRIU: %s: %w", what, why, err).WithNext("%s", unexplained)
}

// unexplained is the next step of a failure that is not in the catalogue. It names no log: that goes with the images, before a person can look.
const unexplained = "look at the tree with `drover doctor`; if that finds nothing, search for these words at https://github.com/checkpoint-restore/criu/issues"

// full says whether a directory's file system has no room left.
func full(dir *os.File) bool {
	var fs unix.Statfs_t
	return unix.Fstatfs(int(dir.Fd()), &fs) == nil && fs.Blocks > 0 && fs.Bavail == 0
}

// readTail reads the end of a file, at most maxLog bytes; "" if there is none.
func readTail(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size() > maxLog {
		_, _ = f.Seek(st.Size()-maxLog, io.SeekStart)
	}
	var b bytes.Buffer
	_, _ = io.Copy(&b, io.LimitReader(f, maxLog)) // what was read of it is better than nothing
	return b.String()
}

// mostErrors is how many of a log's errors a message quotes: the first tells what failed, those after it of what.
const mostErrors = 3

// lastErrors are the texts of the log's last errors that are not mere consequences, at most mostErrors, without CRIU's time stamps and source
// lines.
func lastErrors(log string) string {
	var last []string
	for line := range strings.Lines(log) {
		_, text, ok := strings.Cut(line, "Error (")
		if !ok {
			continue
		}
		if _, t, ok := strings.Cut(text, "): "); ok {
			text = strings.TrimSpace(t)
		}
		if !isConsequence(text) {
			last = append(last, text)
		}
	}
	return strings.Join(last[max(0, len(last)-mostErrors):], "; ")
}

// isConsequence says whether an error line tells only that something failed before it.
func isConsequence(text string) bool {
	for _, s := range []string{"Dumping FAILED", "Restoring FAILED", "RLIMIT_NOFILE for self", "exited, status=", "killed by signal", "Pre-dumping FAILED", "Can't wait or bad status"} {
		if strings.Contains(text, s) {
			return true
		}
	}
	return false
}

var runIDLine = regexp.MustCompile(`CRIU run id = ([0-9a-f-]{36})`)

// runID is the id by which CRIU names what a dump leaves outside the tree, "" if its log does not say.
func runID(images *os.File, logFile string) string {
	f, err := os.Open(inDir(images, logFile))
	if err != nil {
		return ""
	}
	defer f.Close()
	head := make([]byte, 16<<10) // it stands in the first lines, once for the process and once for the request
	n, _ := io.ReadFull(f, head)
	all := runIDLine.FindAllSubmatch(head[:n], -1)
	if len(all) == 0 {
		return ""
	}
	return string(all[len(all)-1][1])
}
