package programs

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"

	"drover/internal/errs"
	"drover/testenv/host/hosttest"
	"drover/testenv/redisload"
)

// postgres is the folder of PostgreSQL's programs in the hosts' file system.
const postgres = "/usr/lib/postgresql/17/bin/"

// TestProgramsMove moves real programs to beta and back while a client holds a connection to them, and uses them afterwards.
func TestProgramsMove(t *testing.T) {
	s := newStage(t, "counter", "shm", "httpd", "noring")
	s.remember(t)
	for _, p := range []struct {
		name string
		test func(*testing.T, *stage)
	}{
		{"a redis with a client that counts", redisMoves},
		{"an nginx with its workers", nginxMoves},
		{"a postgres in the middle of a transaction", postgresMoves},
		{"a python with threads, a child and pipes", pythonMoves},
		{"a node without a ring", nodeMoves},
		{"a Go server without multipath TCP", goServerMoves},
		{"a pair that shares System V memory", func(t *testing.T, s *stage) { pairMoves(t, s, "sysv") }},
		{"a pair that shares a memory file", func(t *testing.T, s *stage) { pairMoves(t, s, "memfd") }},
		{"a tree of processes and threads", treeMoves},
	} {
		if t.Run(p.name, func(t *testing.T) { p.test(t, s) }) {
			s.nothingLeft(t)
		}
	}
}

// thereAndBack moves a workload to beta and back; works is called before, between and afterwards, with the number of moves so far.
// Then the workload is removed.
func thereAndBack(t *testing.T, s *stage, name string, works func(t *testing.T, moves int)) {
	t.Helper()
	works(t, 0)
	for i, to := range []string{"beta", "alpha"} {
		s.move(t, name, to)
		if w := s.workload(t, name); w.Owner != to || w.Status.State != "running" {
			t.Fatalf("after the move to %s it is %s on %s", to, w.Status.State, w.Owner)
		}
		works(t, i+1)
	}
	s.do(t, "rm", "--force", name)
}

func redisMoves(t *testing.T, s *stage) {
	s.do(t, "run", "cache", "--host", "alpha", "--address", "10.77.0.50/24", "--volume", "/srv/cache:/data", "--",
		"redis-server", "--dir", "/data", "--save", "", "--appendonly", "yes", "--bind", "0.0.0.0", "--protected-mode", "no")
	counter := redisload.Count(s.dial(t, "10.77.0.50:6379"), "n")
	thereAndBack(t, s, "cache", func(t *testing.T, moves int) {
		if _, err := counter.Next(t.Context()); err != nil {
			t.Fatalf("the connection broke: %v", err)
		}
		if moves == 2 {
			seen, err := counter.Stop() // before it is removed
			if err != nil || seen.Lost != 0 || seen.Repeated != 0 || seen.Requests == 0 {
				t.Errorf("the client saw %+v, %v", seen, err)
			}
		}
	})
}

// browser asks for pages over one connection that it keeps.
type browser struct {
	conn net.Conn
	r    *bufio.Reader
}

func (s *stage) browse(t *testing.T, address string) *browser {
	t.Helper()
	conn := s.dial(t, address)
	return &browser{conn, bufio.NewReader(conn)}
}

func (b *browser) page(t *testing.T) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://server/", nil)
	if err == nil {
		err = req.Write(b.conn)
	}
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(b.r, req)
	if err != nil {
		t.Fatalf("no answer over the old connection: %v", err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK { // one that closes afterwards is told by the next page over it
		t.Fatalf("%s %q, %v", answer.Status, body, err)
	}
	return strings.TrimSpace(string(body))
}

const nginxConf = `daemon off;
error_log error.log;
pid nginx.pid;
worker_processes 2;
events {}
http {
	access_log access.log;
	keepalive_timeout 600;
	client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; scgi_temp_path scgi; uwsgi_temp_path uwsgi;
	server { listen 10.77.0.51:80; location / { return 200 "worker $pid"; } }
}
`

func nginxMoves(t *testing.T, s *stage) {
	hosttest.Run(t, s.alpha.Host, "mkdir", "-p", "/srv/web")
	put(t, s, "/srv/web/nginx.conf", nginxConf)
	defer hosttest.Run(t, s.alpha.Host, "rm", "-r", "/srv/web")
	s.do(t, "run", "web", "--host", "alpha", "--address", "10.77.0.51/24", "--volume", "/srv/web:/srv/web", "--", "nginx", "-p", "/srv/web", "-c", "nginx.conf")
	old := s.browse(t, "10.77.0.51:80")
	worker := old.page(t)
	thereAndBack(t, s, "web", func(t *testing.T, moves int) {
		if now := old.page(t); now != worker {
			t.Errorf("the old connection is now served by %s, it was %s", now, worker)
		}
		s.browse(t, "10.77.0.51:80").page(t)
		hosttest.Eventually(t, "a master and two workers are known", func() bool { return s.workload(t, "web").Status.Processes == 3 })
		if moves == 2 {
			hosttest.Run(t, s.alpha.Host, "kill", "-HUP", strconv.Itoa(s.workload(t, "web").Status.Pid))
			hosttest.Eventually(t, "new workers serve after a reload", func() bool { return s.browse(t, "10.77.0.51:80").page(t) != worker })
		}
	})
}

// put writes a file on alpha, readable for everybody.
func put(t *testing.T, s *stage, path, content string) {
	t.Helper()
	if err := os.WriteFile(s.alpha.Path(path), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func postgresMoves(t *testing.T, s *stage) {
	hosttest.Run(t, s.alpha.Host, "install", "-d", "-o", "postgres", "-g", "postgres", "-m", "0700", "/srv/db")
	defer hosttest.Run(t, s.alpha.Host, "rm", "-r", "/srv/db")
	hosttest.Run(t, s.alpha.Host, "setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", postgres+"initdb", "-D", "/srv/db", "-A", "trust", "--no-sync", "--no-instructions")
	put(t, s, "/srv/db/pg_hba.conf", "host all all 10.77.0.0/24 trust\n")
	id := hosttest.Run(t, s.alpha.Host, "sh", "-c", "echo $(id -u postgres):$(id -g postgres)")
	s.do(t, "run", "db", "--host", "alpha", "--address", "10.77.0.52/24", "--user", id, "--volume", "/srv/db:/srv/db", "--",
		postgres+"postgres", "-D", "/srv/db", "-c", "listen_addresses=10.77.0.52", "-c", "unix_socket_directories=", "-c", "shared_buffers=16MB")
	s.dial(t, "10.77.0.52:5432").Close()
	sql := s.psql(t)
	sql.say(t, "create table seen (n int); begin; insert into seen values (0);")
	thereAndBack(t, s, "db", func(t *testing.T, moves int) {
		n := moves + 1
		sql.say(t, fmt.Sprintf("insert into seen values (%d);", n))
		if got, want := sql.ask(t, "select count(*), sum(n) from seen;"), fmt.Sprintf("%d|%d", n+1, n*(n+1)/2); got != want {
			t.Errorf("the transaction sees %s, want %s", got, want)
		}
		other := s.psql(t)
		if got := other.ask(t, "select count(*) from seen;"); got != "0" {
			t.Errorf("another session sees %s rows of the open transaction", got)
		}
		if moves == 2 {
			sql.say(t, "commit; checkpoint;")
			if got := other.ask(t, "select count(*) from seen;"); got != "4" {
				t.Errorf("after the commit another session sees %s rows, want 4", got)
			}
		}
	})
}

// session is a psql on the client's host, over one connection.
type session struct {
	in  io.Writer
	out *bufio.Reader
}

func (s *stage) psql(t *testing.T) *session {
	t.Helper()
	var q session
	hosttest.Eventually(t, "postgres takes connections", func() bool {
		cmd := s.client.Command(t.Context(), postgres+"psql", "-h", "10.77.0.52", "-U", "postgres", "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1")
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stderr = cmd.Stdout
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		q = session{in, bufio.NewReader(out)}
		fmt.Fprintln(in, "select 'ready';")
		line, _ := q.out.ReadString('\n')
		if line == "ready\n" {
			t.Cleanup(func() { in.Close(); _ = cmd.Wait() }) // how it ends says nothing: its server may be gone
			return true
		}
		in.Close()
		_ = cmd.Wait()
		return false
	})
	return &q
}

// ask returns the one line that a query answers with.
func (q *session) ask(t *testing.T, query string) string {
	t.Helper()
	if _, err := fmt.Fprintln(q.in, query); err != nil {
		t.Fatalf("the session has ended: %v", err)
	}
	line, err := q.out.ReadString('\n')
	if err != nil {
		t.Fatalf("%s: the session has ended: %v", query, err)
	}
	return strings.TrimSpace(line)
}

// say returns when statements that answer nothing are done.
func (q *session) say(t *testing.T, statements string) {
	t.Helper()
	if got := q.ask(t, statements+" select 'done';"); got != "done" {
		t.Fatalf("%s: %s", statements, got)
	}
}

// pythonTree answers each line with its number, how far its threads have come, and what its child says to it through a pipe.
const pythonTree = `
import os, socket, threading, time
down, up = os.pipe(), os.pipe()
if os.fork() == 0:
    os.close(down[1]); os.close(up[0])
    asks, answers = os.fdopen(down[0]), os.fdopen(up[1], "w")
    for n, line in enumerate(asks, 1):
        print("child", n, line.strip(), file=answers, flush=True)
    os._exit(0)
os.close(down[0]); os.close(up[1])
asks, answers = os.fdopen(down[1], "w"), os.fdopen(up[0])
counts = [0] * 4
def count(i):
    while True:
        counts[i] += 1
        time.sleep(0.001)
for i in range(4):
    threading.Thread(target=count, args=(i,), daemon=True).start()
server = socket.create_server(("10.77.0.53", 5000))
def serve(conn):
    with conn, conn.makefile("rw") as f:
        for n, line in enumerate(f, 1):
            print(line.strip(), file=asks, flush=True)
            print(n, min(counts), answers.readline().strip(), file=f, flush=True)
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
`

func pythonMoves(t *testing.T, s *stage) {
	s.do(t, "run", "tree", "--host", "alpha", "--address", "10.77.0.53/24", "--", "python3", "-c", pythonTree)
	conn := s.dial(t, "10.77.0.53:5000")
	answers := bufio.NewReader(conn)
	asked, before := 0, 0
	ask := func(t *testing.T) (counted int) {
		t.Helper()
		asked++
		if _, err := fmt.Fprintf(conn, "question-%d\n", asked); err != nil {
			t.Fatal(err)
		}
		line, err := answers.ReadString('\n')
		if err != nil {
			t.Fatalf("no answer: %v", err)
		}
		var n, inChild int
		var question string
		if _, err := fmt.Sscanf(line, "%d %d child %d %s", &n, &counted, &inChild, &question); err != nil || n != asked || inChild != asked || question != fmt.Sprintf("question-%d", asked) {
			t.Fatalf("question %d was answered %q (%v)", asked, line, err)
		}
		return counted
	}
	thereAndBack(t, s, "tree", func(t *testing.T, _ int) {
		hosttest.Eventually(t, "every thread goes on", func() bool { return ask(t) > before+20 })
		before = ask(t)
	})
}

const nodeServer = `let n = 0; setInterval(() => { n += 1000000 }, 1000);
require('http').createServer({keepAliveTimeout: 600000}, (q, a) => a.end(String(++n % 1000000))).listen(8080, '10.77.0.54')`

func nodeMoves(t *testing.T, s *stage) {
	s.do(t, "run", "site", "--host", "alpha", "--address", "10.77.0.54/24", "--", "noring", "node", "-e", nodeServer)
	countsOn(t, s, "site", "10.77.0.54:8080")
}

func goServerMoves(t *testing.T, s *stage) {
	s.do(t, "run", "api", "--host", "alpha", "--address", "10.77.0.55/24", "--env", "GODEBUG=multipathtcp=0", "--", "httpd", "-listen", "10.77.0.55:8080")
	countsOn(t, s, "api", "10.77.0.55:8080")
}

// countsOn moves a web server that numbers its answers.
func countsOn(t *testing.T, s *stage, name, address string) {
	t.Helper()
	old, n := s.browse(t, address), 0
	thereAndBack(t, s, name, func(t *testing.T, _ int) {
		for _, b := range []*browser{old, s.browse(t, address), old} {
			n++
			if got := b.page(t); got != strconv.Itoa(n) {
				t.Errorf("answer %s, want %d", got, n)
			}
		}
	})
}

func pairMoves(t *testing.T, s *stage, kind string) {
	s.do(t, "run", "pair", "--host", "alpha", "--", "shm", "-kind", kind, "-say", "100ms")
	var last int
	thereAndBack(t, s, "pair", func(t *testing.T, _ int) {
		r := saysMore(t, s, "pair", "rounds", last)
		if r["faults"] != 0 || r["pages"] != 256 {
			t.Errorf("the pair says %v", r)
		}
		last = r["rounds"]
	})
}

func treeMoves(t *testing.T, s *stage) {
	s.do(t, "run", "counters", "--host", "alpha", "--", "counter", "-processes", "7", "-threads", "4", "-say", "100ms")
	var last int
	thereAndBack(t, s, "counters", func(t *testing.T, _ int) {
		r := saysMore(t, s, "counters", "steps", last)
		if r["faults"] != 0 || r["processes"] != 7 || r["threads"] != 28 {
			t.Errorf("the tree says %v", r)
		}
		last = r["steps"]
	})
}

// saysMore returns a victim's report as soon as the given figure has grown by a good deal.
func saysMore(t *testing.T, s *stage, name, figure string, than int) (report map[string]int) {
	t.Helper()
	hosttest.Eventually(t, name+" goes on", func() bool {
		var said map[string]any
		if json.Unmarshal([]byte(s.do(t, "logs", name, "--tail", "1")), &said) != nil {
			return false
		}
		report = map[string]int{}
		for k, v := range said {
			if f, ok := v.(float64); ok {
				report[k] = int(f)
			}
		}
		return report[figure] > than+100
	})
	return report
}

// TestTheDoctorSaysHowToMendWhatCannotMove starts programs as people do and asks the doctor, who refuses them; as the doctor
// says, they move (TestProgramsMove).
func TestTheDoctorSaysHowToMendWhatCannotMove(t *testing.T) {
	s := newStage(t, "httpd")
	for _, c := range []struct {
		name, address, mend string
		command             []string
		why                 string
	}{
		{"api", "10.77.0.55", "GODEBUG=multipathtcp=0", []string{"httpd", "-listen", "10.77.0.55:8080"}, "MPTCP"},
		{"site", "10.77.0.54", "seccomp", []string{"node", "-e", nodeServer}, "io_uring"},
	} {
		t.Run(c.why, func(t *testing.T) {
			s.do(t, append([]string{"run", c.name, "--host", "alpha", "--address", c.address + "/24", "--"}, c.command...)...)
			b := s.browse(t, c.address+":8080")
			b.page(t)
			a := s.ask(t, "doctor", c.name, "--to", "beta")
			if a.code != errs.Refused.ExitCode() || !strings.Contains(a.out, "NO-GO") || !strings.Contains(a.out, c.why) || !strings.Contains(a.out, c.mend) {
				t.Errorf("the doctor ended with %d and said:\n%s%s", a.code, a.out, a.complaint)
			}
			s.refuses(t, errs.Refused, []string{c.name, c.why}, "migrate", c.name, "--to", "beta")
			b.page(t)
			s.do(t, "rm", "--force", c.name)
		})
	}
}
