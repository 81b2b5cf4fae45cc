package programs

import (
	"bufio"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"drover/internal/errs"
	"drover/internal/workload"
	"drover/testenv/host/hosttest"
)

// TestACopyThatIsLeftFenced moves a tree that serves at an address of its own, leaves its source stopped, and tries what an
// operator may do about that: it can be gone back to only when the other one has ended, and it can be removed without a trace.
func TestACopyThatIsLeftFenced(t *testing.T) {
	s := newStage(t, "counter", "httpd")
	s.remember(t)
	for _, c := range []struct {
		name string
		test func(*testing.T, *stage)
	}{
		{"it is continued only by force and once the owner's has ended", goBackToCopy},
		{"it is removed and the workload lives on", removeCopy},
		{"it is removed with the workload", removeAll},
		{"what it leaves in its host's network is removed", removeCopyOfHost},
		{"its owner's host is gone for good", goBackFromDeadHost},
	} {
		if !t.Run(c.name, func(t *testing.T) { c.test(t, s) }) {
			return
		}
	}
}

// serveAndLeave has httpd serve on beta, with its copy left on alpha.
func serveAndLeave(t *testing.T, s *stage) {
	t.Helper()
	s.do(t, "run", "web", "--host", "alpha", "--address", "10.77.0.60/24", "--env", "GODEBUG=multipathtcp=0", "--", "httpd", "-listen", "10.77.0.60:8080")
	s.dial(t, "10.77.0.60:8080")
	s.move(t, "web", "beta", "--source-final-state", "stopped")
	hosttest.Eventually(t, "the copy is shown", func() bool {
		w := s.workload(t, "web")
		return len(w.Copies) == 1 && w.Copies[0].Host == "alpha" && w.Copies[0].State == workload.Fenced
	})
	s.serves(t, "beta")
}

// serves fails unless the web workload is that host's, answers there, and stands still anywhere else.
func (s *stage) serves(t *testing.T, owner string) {
	t.Helper()
	if w := s.awaitState(t, "web", workload.Running); w.Owner != owner {
		t.Errorf("it is on %s, not on %s", w.Owner, owner)
	}
	s.dial(t, "10.77.0.60:8080")
	for _, m := range s.Workers {
		for process, state := range s.states(t, m, "httpd") {
			if (state == "T") == (m.Name == owner) {
				t.Errorf("on %s %s is in state %s; the owner is %s", m.Name, process, state, owner)
			}
		}
	}
}

func goBackToCopy(t *testing.T, s *stage) {
	serveAndLeave(t, s)
	s.refuses(t, errs.Refused, []string{"web", "alpha", "beta"}, "continue", "web", "--host", "alpha")
	s.refuses(t, errs.Refused, []string{"web", "running", "beta"}, "continue", "web", "--host", "alpha", "--force")
	s.refuses(t, errs.Refused, []string{"web", "running", "beta"}, "continue", "web", "--host", "alpha", "--force", "--off", "beta")
	s.refuses(t, errs.NotFound, []string{"omega"}, "continue", "web", "--host", "omega", "--force")
	s.serves(t, "beta")

	s.do(t, "stop", "web")
	s.refuses(t, errs.Refused, []string{"web", "alpha"}, "continue", "web", "--host", "alpha")
	for range 2 { // the second changes nothing
		s.do(t, "continue", "web", "--host", "alpha", "--force")
		s.serves(t, "alpha")
	}
	s.do(t, "rm", "web", "--host", "beta") // what has ended there
	s.do(t, "rm", "--force", "web")
	s.nothingLeft(t)
}

func removeCopy(t *testing.T, s *stage) {
	serveAndLeave(t, s)
	s.refuses(t, errs.Conflict, []string{"web", "alpha", "fenced"}, "rm", "web")
	s.do(t, "rm", "web", "--host", "alpha")
	s.refuses(t, errs.NotFound, []string{"web", "alpha"}, "rm", "web", "--host", "alpha")
	s.serves(t, "beta")
	if left := s.states(t, s.alpha, "httpd"); len(left) != 0 {
		t.Errorf("alpha still has %v", left)
	}
	s.move(t, "web", "alpha") // nothing is in its way there
	s.serves(t, "alpha")
	s.do(t, "rm", "--force", "web")
	s.nothingLeft(t)
}

func removeAll(t *testing.T, s *stage) {
	serveAndLeave(t, s)
	s.do(t, "stop", "web")
	s.refuses(t, errs.Conflict, []string{"web", "alpha"}, "rm", "web", "--host", "alpha") // it may be the last one
	s.do(t, "rm", "--force", "web")
	s.nothingLeft(t)
}

// removeCopyOfHost adopts a server at an address of alpha's own, with a client connected: its dump locks that connection in the
// host's network, and the lock has to go with the copy.
func removeCopyOfHost(t *testing.T, s *stage) {
	link := strings.TrimSpace(hosttest.Run(t, s.alpha.Host, "sh", "-c", "ip -o route show 10.77.0.0/24 | grep -o 'dev [^ ]*' | cut -d' ' -f2"))
	hosttest.Run(t, s.alpha.Host, "ip", "address", "add", "10.77.0.61/24", "dev", link)
	d, err := s.alpha.Start(t.Context(), "served", []string{"httpd", "-listen", "10.77.0.61:8080"}, "GODEBUG=multipathtcp=0")
	if err != nil {
		t.Fatal(err)
	}
	hosttest.Run(t, s.beta.Host, "touch", "/var/log/served.log")
	s.do(t, "adopt", "host-web", "--host", "alpha", "--pid", strconv.Itoa(d.Pid), "--address", "10.77.0.61/24")
	conn := s.dial(t, "10.77.0.61:8080")
	request := func() {
		t.Helper()
		if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: web\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		r, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("the server does not answer: %v", err)
		}
		defer r.Body.Close()
		if _, err := io.ReadAll(r.Body); err != nil || r.StatusCode != http.StatusOK {
			t.Fatalf("the server answers %s, %v", r.Status, err)
		}
	}
	request()
	s.move(t, "host-web", "beta", "--source-final-state", "stopped")
	locks := func() string {
		return hosttest.Run(t, s.alpha.Host, "sh", "-c", "nft list tables | grep CRIU- || true")
	}
	if locks() == "" {
		t.Error("the dump has left no lock: nothing is tried here")
	}
	request()
	s.do(t, "rm", "host-web", "--host", "alpha")
	if left := locks(); left != "" {
		t.Errorf("of the copy's dump there is left: %s", left)
	}
	request() // without a lock nothing may answer for the connection in alpha
	s.do(t, "rm", "--force", "host-web")
	hosttest.Run(t, s.alpha.Host, "rm", "/var/log/served.log")
	hosttest.Run(t, s.beta.Host, "rm", "-f", "/var/log/served.log")
	s.nothingLeft(t)
}

// goBackFromDeadHost ends beta as a power cut does.
func goBackFromDeadHost(t *testing.T, s *stage) {
	serveAndLeave(t, s)
	if err := s.beta.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	hosttest.Eventually(t, "beta is silent", func() bool { return strings.Contains(s.do(t, "hosts"), "silent") })
	s.refuses(t, errs.Refused, []string{"web", "beta"}, "continue", "web", "--host", "alpha", "--force")
	s.refuses(t, errs.Refused, []string{"web", "beta"}, "continue", "web", "--host", "alpha", "--force", "--off", "alpha")
	s.do(t, "continue", "web", "--host", "alpha", "--force", "--off", "beta")
	if w := s.awaitState(t, "web", workload.Running); w.Owner != "alpha" {
		t.Errorf("it is on %s", w.Owner)
	}
	s.dial(t, "10.77.0.60:8080")
	s.do(t, "rm", "--force", "web")
}
