package criu

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/checkpoint-restore/go-criu/v8/rpc"

	"drover/internal/errs"
)

// The log goes with the images, so that what it says of an unknown failure must be in the message.
func TestAFailureThatIsNotKnownQuotesTheLogAndNamesNone(t *testing.T) {
	dir := t.TempDir()
	log := `(00.001) Error (criu/a.c:1): one: too early to be quoted
(00.002) Error (criu/a.c:2): two: the page is odd
(00.003) Warn  (criu/a.c:3): not an error
(00.004) Error (criu/b.c:4): three: cannot dump the odd page
(00.005) Error (criu/c.c:5): four: neither the file
(00.006) Error (criu/cr-dump.c:6): Dumping FAILED.
`
	if err := os.WriteFile(filepath.Join(dir, dumpLog), []byte(log), 0o600); err != nil {
		t.Fatal(err)
	}
	opened, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	got := failure("dump pid 5", opened, dumpLog, new(rpc.CriuResp), nil)
	if want := "dump pid 5: CRIU: two: the page is odd; three: cannot dump the odd page; four: neither the file"; got.Error() != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if next := errs.NextOf(got); next == "" || strings.Contains(next, dumpLog) {
		t.Errorf("the next step is %q", next)
	}
}
