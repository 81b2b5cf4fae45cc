package main

import (
	"context"
	"errors"
	"flag"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/crypto/ssh"

	"drover/configs"
	"drover/coordinator/api"
	"drover/internal/pki"
	"drover/transfer/link"
)

var update = flag.Bool("update", false, "rewrite what is generated: golden files and the documents")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"drover": func() { os.Exit(Main()) }})
}

// TestCommands runs the scripts in testdata/scripts: each gets a cluster of its own, reached over SSH as a real one is.
func TestCommands(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/scripts",
		UpdateScripts: *update,
		Setup:         serveFake,
		Cmds:          map[string]func(ts *testscript.TestScript, neg bool, args []string){"exits": exitsWith, "await": await, "eventually": eventually},
	})
}

// serveFake starts a fake coordinator behind a real link and writes the client's configuration for it.
func serveFake(env *testscript.Env) error {
	ca, err := pki.NewAuthority()
	if err != nil {
		return err
	}
	identity, err := ca.NewIdentity(pki.Coordinator("c1"), time.Hour)
	if err != nil {
		return err
	}
	key, err := pki.NewKey()
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := link.NewServer(identity, link.Options{Keys: func(k ssh.PublicKey) (pki.Principal, bool) {
		return pki.Principal{Role: pki.RoleOperator, Name: "me", Level: pki.LevelAdmin}, pki.SameKey(k, key.PublicKey())
	}})
	calls := server.Listener(link.ChannelAPI, func(pki.Principal) bool { return true })
	h := &http.Server{Handler: api.NewHandler(newFake(env.WorkDir), func(context.Context, api.Need) error { return nil }), ConnContext: link.ConnContext}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 2)
	go func() { served <- server.Serve(ctx, l) }()
	go func() { served <- h.Serve(calls) }()
	env.Defer(func() {
		_ = h.Close()
		cancel()
		_, _ = <-served, <-served
	})
	return configureClient(env, ca, key, l.Addr().String())
}

func configureClient(env *testscript.Env, ca *pki.Authority, key *pki.Key, address string) error {
	home := filepath.Join(env.WorkDir, "home")
	env.Setenv("HOME", home)
	env.Setenv("SERVER", address)
	for _, name := range []string{"PORT1", "PORT2", "PORT3"} {
		port, err := freePort()
		if err != nil {
			return err
		}
		env.Setenv(name, port)
	}
	cfg := configs.DefaultClient()
	cfg.Coordinators = []string{"127.0.0.1:1", address} // the first is gone: the second answers
	cfg.Authority = pki.Format(ca.PublicKey())
	cfg.Identity = filepath.Join(home, "key")
	if err := configs.Write(filepath.Join(home, ".config", "drover", "client.yaml"), "a test", &cfg); err != nil {
		return err
	}
	pem, err := key.PEM()
	if err != nil {
		return err
	}
	return os.WriteFile(cfg.Identity, pem, 0o600)
}

// exitsWith CODE ARGS... runs drover and checks its exit code, and that an error is one line with at most one next step.
func exitsWith(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE VERB ARGS...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	code := 0
	if err := ts.Exec("drover", args[1:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("run drover: %v", err)
		}
		code = exit.ExitCode()
	}
	if code != want {
		ts.Fatalf("exit code %d, not %d", code, want)
	}
	if want == 0 {
		return
	}
	lines := strings.Split(strings.TrimSpace(ts.ReadFile("stderr")), "\n")
	last := lines[max(0, len(lines)-2):]
	for i, line := range last {
		if strings.HasPrefix(line, "drover: ") && (i == len(last)-1 || strings.HasPrefix(last[i+1], "  → ")) {
			return
		}
	}
	ts.Fatalf("the error is not one line and a next step: %q", lines)
}

// await FILE waits until the file is there, ! await FILE until it is not.
func await(ts *testscript.TestScript, neg bool, args []string) {
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	deadline := time.After(30 * time.Second)
	for {
		if _, err := os.Stat(ts.MkAbs(args[0])); (err != nil) == neg {
			return
		}
		select {
		case <-look.C:
		case <-deadline:
			ts.Fatalf("%s did not appear, or go: %t", args[0], neg)
		}
	}
}

// eventually PATTERN VERB ARGS... runs drover until it succeeds and its output matches; negated, until it does not succeed, and its
// output matches.
func eventually(ts *testscript.TestScript, neg bool, args []string) {
	pattern := regexp.MustCompile(args[0])
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	deadline := time.After(time.Minute)
	for {
		if err := ts.Exec("drover", args[1:]...); (err != nil) == neg && pattern.MatchString(ts.ReadFile("stdout")) {
			return
		}
		select {
		case <-again.C:
		case <-deadline:
			ts.Fatalf("the output never matched %s", pattern)
		}
	}
}

// freePort is a port that nobody has now, below those that outgoing connections get: the other scripts make many of them.
func freePort() (string, error) {
	for range 100 {
		port := strconv.Itoa(20000 + rand.IntN(12000))
		if l, err := net.Listen("tcp", "127.0.0.1:"+port); err == nil {
			return port, l.Close()
		}
	}
	return "", errors.New("100 ports were all taken")
}
