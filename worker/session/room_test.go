package session_test

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"drover/engine/image"
	"drover/internal/errs"
	"drover/internal/migration"
	workerapi "drover/worker/api"
	"drover/worker/session"
)

func plenty() (int64, error) { return 1 << 40, nil }

func TestATreeWhoseStoreHasNoRoomIsRefusedBeforeAnythingIsTouched(t *testing.T) {
	broken := errs.New(errs.Failed, "no disk")
	for _, c := range []struct {
		what   string
		stores session.Stores
		kind   errs.Kind
		says   string
	}{
		{"a limit", session.Stores{Memory: 1<<20 - 1}, errs.Refused, "stores may take 0 MiB of the memory of beta"},
		{"a disk that is full", session.Stores{Memory: 4096, Spill: "/disk", SpillFree: func() (int64, error) { return 4096, nil }}, errs.Refused, "0 MiB on the disk of /disk: it needs 1 MiB"},
		{"a disk that is not there", session.Stores{Spill: "/disk", SpillFree: func() (int64, error) { return 0, broken }}, errs.Failed, "no disk"},
	} {
		p := newPairWith(t, c.stores)
		_, err := p.target.Open(t.Context(), p.request(migration.Target))
		if errs.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.says) || c.kind == errs.Refused && errs.NextOf(err) == "" {
			t.Errorf("%s: %v", c.what, err)
		}
		if slices.Contains(p.world.Steps(), "beta:reserve") || p.target.Reserved() != 0 {
			t.Errorf("%s: a place was made, %d bytes are promised", c.what, p.target.Reserved())
		}
	}
}

// TestAStoreThatHasNoRoomInMemoryGoesToADisk, and nothing of it is left there.
func TestAStoreThatHasNoRoomInMemoryGoesToADisk(t *testing.T) {
	for _, fills := range []bool{true, false} {
		t.Run(fmt.Sprintf("filled in %t", fills), func(t *testing.T) {
			disk := t.TempDir()
			p := newPairWith(t, session.Stores{Memory: 3 * image.PageSize, Spill: disk, SpillFree: plenty})
			if !fills {
				p.world.Fail("beta:fills", errs.New(errs.Unavailable, "no userfaultfd"))
			}
			var there int64
			p.world.Before("beta:restore", func() { there = unnamedIn(t, disk) })
			want := p.tree.Memory()
			p.upTo(migration.Done)
			if !reflect.DeepEqual(p.beta.Copy(name).Memory(), want) {
				t.Error("the memory that arrived is not the memory that was frozen")
			}
			if there == 0 {
				t.Error("nothing of it was on the disk")
			}
			p.livesOnlyOn("beta")
			if left, err := os.ReadDir(disk); err != nil || len(left) > 0 || p.target.Reserved() != 0 {
				t.Errorf("left: %v, %v, %d bytes promised", left, err, p.target.Reserved())
			}
			p.until(p.target, func(workerapi.SessionState) bool { return unnamedIn(t, disk) == 0 })
		})
	}
}

// unnamedIn is how many bytes this process has in files of a directory that have no names.
func unnamedIn(t *testing.T, dir string) (bytes int64) {
	t.Helper()
	open, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range open {
		if to, err := os.Readlink(fd); err != nil || !strings.HasPrefix(to, dir+"/") {
			continue
		}
		if info, err := os.Stat(fd); err == nil && !info.IsDir() {
			bytes += info.Size()
		}
	}
	return bytes
}

// TestStoresOfSeveralMovesShareTheRoom: the second does not fit while the first is there, and does when it has gone.
func TestStoresOfSeveralMovesShareTheRoom(t *testing.T) {
	p := newPairWith(t, session.Stores{Memory: 3 << 19})
	other := p.request(migration.Target)
	other.Migration, other.Spec.Name, other.Inventory.Spec.Name, other.Inventory.Workload = "m-other", "other", "other", "other"
	if _, err := p.target.Open(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	_, err := p.target.Open(t.Context(), p.request(migration.Target))
	if errs.KindOf(err) != errs.Refused || !strings.Contains(err.Error(), "stores may take 1 MiB of the memory of beta, and 0 MiB are left") {
		t.Errorf("got %v", err)
	}
	if _, err := p.target.Decide(t.Context(), other.Migration, migration.Abort, at); err != nil {
		t.Fatal(err)
	}
	p.upTo(migration.Done)
	p.livesOnlyOn("beta")
}

// TestAStoreThatOutgrowsItsRoomEndsTheMoveOrGoesOnOnADisk: a tree was smaller when it was looked at.
func TestAStoreThatOutgrowsItsRoomEndsTheMoveOrGoesOnOnADisk(t *testing.T) {
	outgrows := func(stores session.Stores) *pair {
		p := newPairWith(t, stores)
		for n := range uint64(400) {
			p.tree.Write(image.Space{Kind: image.Process, ID: 7}, 0x1000000+n*image.PageSize, 1)
		}
		return p
	}
	p := outgrows(session.Stores{Memory: 1 << 20})
	p.open()
	st := p.await(p.target, workerapi.StepFailed)
	if st.Kind != errs.Refused.String() || !strings.Contains(st.Error, "needs more than 1 MiB") || st.Next == "" {
		t.Errorf("failed with kind %q, next %q: %s", st.Kind, st.Next, st.Error)
	}
	p.decide(p.source, migration.Abort)
	p.decide(p.target, migration.Abort)
	p.livesOnlyOn("alpha")

	p = outgrows(session.Stores{Memory: 1 << 20, Spill: t.TempDir(), SpillFree: plenty})
	want := p.tree.Memory()
	p.upTo(migration.Done)
	if !reflect.DeepEqual(p.beta.Copy(name).Memory(), want) {
		t.Error("the memory that arrived is not the memory that was frozen")
	}
	p.livesOnlyOn("beta")

	p = outgrows(session.Stores{}) // there is memory
	p.upTo(migration.Done)
	p.livesOnlyOn("beta")
}

func TestADiskThatFailsInMidStreamEndsTheMove(t *testing.T) {
	gone := filepath.Join(t.TempDir(), "gone")
	p := newPairWith(t, session.Stores{Memory: 3 * image.PageSize, Spill: gone, SpillFree: plenty})
	if _, err := p.target.Open(t.Context(), p.request(migration.Target)); err != nil {
		t.Fatal(err)
	}
	st := p.await(p.target, workerapi.StepFailed)
	if !strings.Contains(st.Error, gone) {
		t.Errorf("got %s", st.Error)
	}
	p.decide(p.target, migration.Abort)
	p.livesOnlyOn("alpha")
}
