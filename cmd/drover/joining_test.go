package main

import (
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"drover/internal/pki"
)

func TestAMachineWhoseCertificatesHaveExpiredJoinsAgainByTheSameKey(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "identity")
	synctest.Test(t, func(t *testing.T) {
		authority, err := pki.NewAuthority()
		if err != nil {
			t.Fatal(err)
		}
		id, err := authority.NewIdentity(pki.Worker("alpha"), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		m := member{role: pki.RoleWorker, name: "alpha", dir: dir}
		if already, err := m.joined(); already || err != nil {
			t.Errorf("before it joins: %v, %v", already, err)
		}
		if err := id.Save(dir); err != nil {
			t.Fatal(err)
		}
		if already, err := m.joined(); !already || err != nil {
			t.Errorf("once it has joined: %v, %v", already, err)
		}
		time.Sleep(2 * time.Hour) //nolint:forbidigo // a bubble's time
		if already, err := m.joined(); already || err != nil {
			t.Errorf("with expired certificates: %v, %v", already, err)
		}
		for range 2 { // the second after an answer was lost
			if key, err := m.key(); err != nil || !pki.SameKey(key.PublicKey(), id.Signer.PublicKey()) {
				t.Errorf("it asks with another key: %v", err)
			}
		}
	})
}
