package moves

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"drover/coordinator/api"
	"drover/internal/pki"
	"drover/testenv/cluster"
)

// watch notes every command line of this machine, the hosts' among them, until stop.
func watch(t *testing.T) (stop func() []byte) {
	t.Helper()
	var seen bytes.Buffer
	known := map[string]bool{}
	done, ended := make(chan struct{}), sync.WaitGroup{}
	ended.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
			for _, file := range lines {
				line, _ := os.ReadFile(file) // it may have ended
				if !known[string(line)] {
					known[string(line)] = true
					seen.Write(line)
					seen.WriteByte('\n')
				}
			}
		}
	})
	return func() []byte { close(done); ended.Wait(); return seen.Bytes() }
}

// TestNoSecretIsInALogAnErrorOrAProcessList looks for every private key and token of a cluster in all that its daemons and verbs have
// said while a host joined, another was refused, a tree moved and the authority's key was changed, and in every command line meanwhile.
func TestNoSecretIsInALogAnErrorOrAProcessList(t *testing.T) {
	stop := watch(t)
	g := newGroundOf(t, cluster.Options{Coordinators: []string{"ceres", "juno", "vesta"}, Workers: []string{"alpha", "beta"}, Args: []string{"--log-level", "debug"}})
	said := new(bytes.Buffer)
	secrets := map[string]string{}
	var token api.Token
	if err := g.JSON(t.Context(), &token, "token", "new"); err != nil {
		t.Fatal(err)
	}
	parsed, err := pki.ParseToken(token.Token)
	if err != nil {
		t.Fatal(err)
	}
	secrets["a token"], secrets["a token's secret"] = token.Token, parsed.Secret
	if err := g.client.Install(program("drover"), "/usr/local/bin/drover"); err != nil {
		t.Fatal(err)
	}
	for range 2 { // it joins; the second time the token is refused, under another name
		cmd := g.client.Command(t.Context(), "/usr/local/bin/drover", "join", "--token", "-", "--name", fmt.Sprintf("late%d", said.Len()), "--advertise", "10.77.0.99:7202",
			"--config", fmt.Sprintf("/tmp/late%d.yaml", said.Len()), "--state-dir", fmt.Sprintf("/tmp/late%d", said.Len()))
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(token.Token), said, said
		_ = cmd.Run()
	}
	s := g.start(t, "secret", "alpha", 0, small)
	if _, err := g.Migrate(t.Context(), nil, s.name, "beta", "--downtime", "5s"); err != nil {
		t.Fatal(err)
	}
	s.lives(t, "beta")
	out, err := g.Drover(t.Context(), "cluster", "rotate-keys")
	if err != nil {
		t.Fatal(err)
	}
	said.WriteString(out)
	out, err = g.Drover(t.Context(), "cluster", "rotate-keys", "--switch", "--force", "--json") // late0 never came up
	fmt.Fprint(said, out, err)
	lines := stop()
	for _, m := range g.members() {
		for _, file := range keysBelow(t, m.Path("/var/lib")) {
			noteKey(t, secrets, m.Name+":"+file, file)
		}
		_ = filepath.WalkDir(m.Path("/var/log"), func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				text, _ := os.ReadFile(path)
				said.Write(text)
			}
			return nil
		})
	}
	if len(secrets) < 8 || said.Len() < 10_000 || !bytes.Contains(lines, []byte("drover")) {
		t.Fatalf("%d secrets were looked for, in %d bytes of logs", len(secrets), said.Len())
	}
	for what, secret := range secrets {
		if bytes.Contains(said.Bytes(), []byte(secret)) {
			t.Errorf("%s is in a log or an answer", what)
		}
		if bytes.Contains(lines, []byte(secret)) {
			t.Errorf("%s is in a process list", what)
		}
	}
}

// keysBelow are the files below a folder that hold a private key.
func keysBelow(t *testing.T, top string) (files []string) {
	t.Helper()
	_ = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if text, _ := os.ReadFile(path); bytes.Contains(text, []byte("PRIVATE KEY")) {
				files = append(files, path)
				if info, err := d.Info(); err != nil || info.Mode().Perm()&0o077 != 0 {
					t.Errorf("others may read %s (%v)", path, err)
				}
			}
		}
		return nil
	})
	return files
}

// noteKey adds what would give a private key away: each line of its file that is not the same in every key's, and its bytes in hex.
func noteKey(t *testing.T, secrets map[string]string, name, file string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	for i, line := range lines[1 : len(lines)-1] {
		if i > 1 && len(line) > 20 { // the first two hold the form and the public key
			secrets[fmt.Sprintf("%s, line %d", name, i)] = line
			secrets[fmt.Sprintf("%s, line %d in hex", name, i)] = hex.EncodeToString([]byte(line))
		}
	}
}
