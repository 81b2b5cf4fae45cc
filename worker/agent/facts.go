package agent

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"drover/internal/errs"
	"drover/internal/sealed"
	workerapi "drover/worker/api"
)

// knownHost is Host once the engine has first been heard of.
func (a *Agent) knownHost(ctx context.Context) (workerapi.HostFacts, error) {
	if err := a.engine.await(ctx); err != nil {
		return workerapi.HostFacts{}, err
	}
	return a.Host(ctx)
}

// Host is workerapi.Worker's. It does not wait long for the engine: a host that says nothing is called lost, with its trees.
func (a *Agent) Host(ctx context.Context) (workerapi.HostFacts, error) {
	f := workerapi.HostFacts{Name: a.cfg.Name, Address: a.cfg.Advertise, Version: Version, CPUs: runtime.NumCPU(), Started: a.started}
	can := a.engine.soon(ctx)
	if f.Engine = can.Features; can.err != nil {
		f.Engine.Unfit, f.Engine.Missing = can.err.Error(), []string{can.err.Error()}
	}
	var err error
	if f.MemoryTotal, _, err = memory(); err != nil {
		return f, err
	}
	room, err := a.Room()
	if err != nil {
		return f, err
	}
	f.MemoryFree, f.Kept = max(0, room.Memory), a.Kept()
	if a.cfg.StoreMemory > 0 || a.cfg.StoreSpill != "" {
		f.Stores = &workerapi.Stores{Limit: a.cfg.StoreMemory, Memory: max(0, room.Store), Spill: room.Spill}
	}
	id := a.certs.Identity()
	f.CertificateUntil, f.Trusts, f.SignedBy = id.Expires(), id.Trust.Fingerprints(), ssh.FingerprintSHA256(id.UserCert.SignatureKey)
	f.Boot = bootID()
	if load, err := os.ReadFile("/proc/loadavg"); err == nil {
		first, _, _ := strings.Cut(string(load), " ")
		f.Load1, _ = strconv.ParseFloat(first, 64)
	}
	if free, err := diskFree(a.cfg.StateDir); err == nil {
		f.DiskFree = free
	}
	return f, nil
}

// bootID is the kernel's boot id, "" if it does not tell.
func bootID() string {
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(boot))
}

// CheckSpill makes the directory that stores spill to (Config.StoreSpill), and says why they cannot.
func CheckSpill(dir string) error {
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		err = sealed.Check(dir)
	}
	if err != nil {
		return errs.New(errs.KindOf(err), "let stores spill to a disk (store_spill): %w", err)
	}
	return nil
}

// diskFree is what the disk of a directory could take, in bytes.
func diskFree(dir string) (int64, error) {
	var disk unix.Statfs_t
	if err := unix.Statfs(dir, &disk); err != nil {
		return 0, err
	}
	return int64(disk.Bavail) * disk.Bsize, nil
}

// memoryFree is what this host could give to trees, without what it has promised.
func (a *Agent) memoryFree() (int64, error) {
	_, free, err := memory()
	return a.limited(free), err
}

func (a *Agent) limited(free int64) int64 {
	if a.cfg.MemoryLimit > 0 {
		return min(free, a.cfg.MemoryLimit)
	}
	return free
}

// memory reads the kernel's figures: all there is, and what could be had without swapping, in bytes.
func memory() (total, available int64, err error) {
	raw, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, 0, errs.New(errs.Failed, "look at the memory: %w", err)
	}
	found := 0
	for lines := bufio.NewScanner(bytes.NewReader(raw)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 {
			continue
		}
		kib, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			continue
		}
		switch fields[0] {
		case "MemTotal:":
			total, found = kib<<10, found+1
		case "MemAvailable:":
			available, found = kib<<10, found+1
		}
	}
	if found != 2 {
		return 0, 0, errs.New(errs.Failed, "look at the memory: /proc/meminfo has no MemTotal and MemAvailable")
	}
	return total, available, nil
}
