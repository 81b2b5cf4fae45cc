package main

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"drover/configs"
	"drover/coordinator/api"
	"drover/internal/errs"
	"drover/internal/pki"
	"drover/internal/workload"
)

// founding is what the first coordinator is told to put into the record when it starts for the first time.
type founding struct {
	Cluster  string       `json:"cluster"`
	Operator api.Operator `json:"operator"`
}

// newCluster is what `drover cluster init` and `drover dev` make.
type newCluster struct {
	name        string
	coordinator configs.Coordinator
	file        string // the coordinator's configuration to write, "" for none
	operator    string // the first administrator's name
	key         string // file of their public key, "" for a new key pair
	clientDir   string // for client.yaml, and a new key pair
	by          string // who writes it, for the files' first line
}

func (n newCluster) clientFile() string { return filepath.Join(n.clientDir, "client.yaml") }
func (n newCluster) keyFile() string    { return filepath.Join(n.clientDir, "operator.key") }

// make writes everything that a first coordinator and its administrator need. It overwrites nothing, and what it made is
// gone again if it fails.
func (n newCluster) make() (authority string, err error) {
	if err := n.check(); err != nil {
		return "", err
	}
	made := &undo{}
	defer func() {
		if err != nil {
			made.run()
		}
	}()
	if err := made.directory(n.coordinator.StateDir); err != nil {
		return "", err
	}
	ca, err := pki.NewAuthority()
	if err != nil {
		return "", err
	}
	identity, err := ca.NewIdentity(pki.Coordinator(n.coordinator.HostName()), pki.MemberLife)
	if err != nil {
		return "", err
	}
	made.add(n.coordinator.AuthorityFile())
	if err := ca.Save(n.coordinator.AuthorityFile()); err != nil {
		return "", err
	}
	made.add(n.coordinator.IdentityDir())
	if err := identity.Save(n.coordinator.IdentityDir()); err != nil {
		return "", err
	}
	authority = pki.Format(ca.PublicKey())
	public, private, err := n.operatorKey(made)
	if err != nil {
		return "", err
	}
	made.add(n.coordinator.FoundingFile())
	f := founding{n.name, api.Operator{Name: n.operator, Key: public, Role: pki.LevelAdmin}}
	if err := writeJSON(n.coordinator.FoundingFile(), f); err != nil {
		return "", err
	}
	return authority, n.configurations(made, authority, private)
}

// check refuses what is there already and what makes no sense, before anything is written.
func (n newCluster) check() error {
	if err := workload.ValidName("cluster", n.name); err != nil {
		return err
	}
	if n.coordinator.HostName() == "" {
		return errs.New(errs.Invalid, "this machine's host name cannot name a coordinator").WithNext("choose one with --name")
	}
	if err := pki.ValidName(n.operator); err != nil {
		return errs.New(errs.Invalid, "the first administrator: %w", err)
	}
	for _, file := range []string{n.coordinator.AuthorityFile(), n.coordinator.IdentityDir(), n.file, n.clientFile()} {
		if file == "" {
			continue
		}
		if _, err := os.Lstat(file); err == nil {
			return errs.New(errs.Conflict, "%s exists already: nothing is overwritten", file).
				WithNext("choose other places with --state-dir, --config and --client-dir, or move it away")
		} else if !errors.Is(err, fs.ErrNotExist) {
			return errs.New(errs.Failed, "look at %s: %w", file, err)
		}
	}
	return nil
}

// operatorKey is the administrator's public key, and the file of the private one if it was made here.
func (n newCluster) operatorKey(made *undo) (public, privateFile string, err error) {
	if n.key != "" {
		public, err := publicKey(n.key)
		return public, "", err
	}
	key, err := pki.NewKey()
	if err != nil {
		return "", "", err
	}
	pem, err := key.PEM()
	if err != nil {
		return "", "", err
	}
	if err := made.directory(n.clientDir); err != nil {
		return "", "", err
	}
	made.add(n.keyFile())
	return pki.Format(key.PublicKey()), n.keyFile(), writeNew(n.keyFile(), pem)
}

func (n newCluster) configurations(made *undo, authority, keyFile string) error {
	if n.file != "" {
		cfg := n.coordinator
		cfg.Name, cfg.Advertise = cfg.HostName(), cfg.Address()
		if err := configs.Write(n.file, n.by, &cfg); err != nil {
			return err
		}
		made.add(n.file)
	}
	client := configs.DefaultClient()
	client.Coordinators = []string{n.coordinator.Address()}
	client.Authority, client.Identity = authority, keyFile
	if err := configs.Write(n.clientFile(), n.by, &client); err != nil {
		return err
	}
	return nil
}

// publicKey reads a public key: a file's, or the text itself.
func publicKey(fileOrText string) (string, error) {
	text := fileOrText
	if _, err := pki.ParsePublicKey(text); err != nil {
		b, err := os.ReadFile(fileOrText)
		if err != nil {
			return "", errs.New(errs.NotFound, "%q is neither a public key nor the file of one: %w", fileOrText, err).
				WithNext("use a file as ~/.ssh/id_ed25519.pub")
		}
		text = string(b)
	}
	key, err := pki.ParsePublicKey(text)
	if err != nil {
		return "", errs.New(errs.Invalid, "%s: %w", fileOrText, err).WithNext("use the file that ends in .pub")
	}
	return pki.Format(key), nil
}

// undo takes back what was made.
type undo struct{ paths []string }

func (u *undo) add(path string) { u.paths = append(u.paths, path) }

func (u *undo) run() {
	for i := len(u.paths) - 1; i >= 0; i-- {
		os.RemoveAll(u.paths[i])
	}
}

// directory makes a directory, 0700, and notes it if it was not there.
func (u *undo) directory(dir string) error {
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		u.add(dir)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return errs.New(errs.Failed, "make directory: %w", err)
	}
	return nil
}

func writeJSON(file string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return errs.New(errs.Failed, "encode %s: %w", file, err)
	}
	return writeNew(file, append(b, '\n'))
}

// writeNew writes a secret to a file that must not exist, and sees that it is on the disk.
func writeNew(file string, data []byte) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return errs.New(errs.Failed, "write %s: %w", file, err)
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errs.New(errs.Failed, "write %s: %w", file, err)
	}
	return nil
}
