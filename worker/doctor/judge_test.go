package doctor

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"drover/internal/errs"
	"drover/internal/workload"
	workerapi "drover/worker/api"
)

// elsewhere are the facts of a host that is not the source's, though this test has only one.
func elsewhere() workerapi.HostFacts { f := here; f.Name = "beta"; return f }

func judge(t *testing.T, inv workerapi.Inventory) []workerapi.Finding {
	t.Helper()
	list, err := Judge(t.Context(), inv, elsewhere(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestAHostLooksAtItsOwnFilesPidsAndPorts(t *testing.T) {
	tree, dir := victim(t, "log,listener")
	inv := inspect(t, tree, adopted())
	all := judge(t, inv)
	if f, ok := find(all, "files", workerapi.Go); !ok {
		t.Errorf("the files are here and equal: %+v", f)
	}
	for _, check := range []string{"pids", "ports"} { // the tree is still here
		if _, no := find(all, check, workerapi.NoGo); !no {
			t.Errorf("%s are taken by the tree itself, but the verdict is %+v", check, all)
		}
	}
	log := filepath.Join(dir, "log")
	if err := os.WriteFile(log, []byte("1234567"), 0o600); err != nil {
		t.Fatal(err)
	}
	if f, no := find(judge(t, inv), "files", workerapi.NoGo); !no || !strings.Contains(f.Detail, log+" has 7 bytes here, 5 on the source") || !strings.Contains(f.Mend, "volume") {
		t.Errorf("a log that grew: %+v", f)
	}
}

func TestALinkInTheRootDoesNotLeadOutOfIt(t *testing.T) {
	root := t.TempDir()
	if err := os.Symlink("/etc", filepath.Join(root, "conf")); err != nil {
		t.Fatal(err)
	}
	inv := tree(func(i *workerapi.Inventory) {
		i.Spec.Rootfs = root
		i.Files = []workerapi.File{{Path: "/conf/passwd"}}
	})
	if f, no := find(judge(t, inv), "files", workerapi.NoGo); !no || !strings.Contains(f.Detail, "/conf/passwd is not here") {
		t.Errorf("the host's own file was taken for the tree's: %+v", f)
	}
}

func TestASharedVolumesFilesAreLookedForWhereTheHostHasThem(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "db"), []byte("123"), 0o600); err != nil {
		t.Fatal(err)
	}
	inv := tree(func(i *workerapi.Inventory) {
		i.Spec.Volumes = []workload.Volume{{Host: dir, Inside: "/data", Shared: true}}
		i.Files = []workerapi.File{{Path: "/data/db", Size: 3, Mode: 0o100600}}
	})
	if f, no := find(judge(t, inv), "files", workerapi.NoGo); no {
		t.Errorf("%+v", f)
	}
}

func TestAnAddressWithoutALinkIsNoGo(t *testing.T) {
	inv := tree(func(i *workerapi.Inventory) { i.Spec.Address, i.OwnNetNS = "198.51.100.7/32", true })
	if f, no := find(judge(t, inv), "address", workerapi.NoGo); !no || !strings.Contains(f.Mend, "198.51.100.7/32") {
		t.Errorf("%+v", f)
	}
}

func TestTheDoctorFindsAWorkloadByItsName(t *testing.T) {
	tree, _ := victim(t, "nothing")
	d := Doctor{
		Workloads: func(context.Context) ([]workload.Status, error) {
			return []workload.Status{
				{Name: "redis", Spec: adopted(), Epoch: 5, State: workload.Running, Pid: tree.Pid},
				{Name: "old", State: workload.Exited},
			}, nil
		},
		Facts: func(context.Context) (workerapi.HostFacts, error) { return here, nil },
	}
	inv, err := d.Inspect(t.Context(), "redis")
	if err != nil || inv.Epoch != 5 || inv.Processes[0].Host != tree.Pid {
		t.Errorf("got %+v, %v", inv, err)
	}
	if _, err := d.Inspect(t.Context(), "old"); errs.KindOf(err) != errs.Conflict {
		t.Errorf("an exited one: %v", err)
	}
	if _, err := d.Inspect(t.Context(), "none"); errs.KindOf(err) != errs.NotFound {
		t.Errorf("an unknown one: %v", err)
	}
	inv.Host, inv.Workload = "omega", "redis"
	list, err := d.Judge(t.Context(), inv)
	if f, no := find(list, "name", workerapi.NoGo); err != nil || !no || !strings.Contains(f.Detail, "running here") {
		t.Errorf("a namesake: %+v, %v", f, err)
	}
}

func TestThePackageOfAFileIsNamed(t *testing.T) {
	root := t.TempDir()
	info := filepath.Join(root, "var/lib/dpkg/info")
	if err := os.MkdirAll(info, 0o755); err != nil {
		t.Fatal(err)
	}
	status := "Package: libdemo1\nStatus: install ok installed\nPriority: optional\nSection: libs\nMaintainer: a <a@b.c>\nArchitecture: all\nVersion: 1\nDescription: d\n"
	for path, text := range map[string]string{
		"var/lib/dpkg/status": status, "var/lib/dpkg/info/format": "1\n", "var/lib/dpkg/info/libdemo1.list": "/.\n/usr/lib/libdemo.so.1\n",
	} {
		if err := os.WriteFile(filepath.Join(root, path), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got := packagesOf(t.Context(), root, []string{"/usr/lib/libdemo.so.1", "/usr/lib/unknown"})
	if got["/usr/lib/libdemo.so.1"] != "libdemo1" || len(got) != 1 {
		t.Errorf("got %v", got)
	}
}

func TestTheCPUIsReadFromProc(t *testing.T) {
	cpu := parseCPU("processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Xeon: the big one\nflags\t\t: sse2 avx2\n\nprocessor\t: 1\nflags\t: none\n")
	if cpu.Vendor != "GenuineIntel" || cpu.Model != "Xeon: the big one" || !slices.Equal(cpu.Features, []string{"avx2", "sse2"}) {
		t.Errorf("got %+v", cpu)
	}
	if mac := parseMAC("02:00:00:00:00:01"); mac.String() != (net.HardwareAddr{2, 0, 0, 0, 0, 1}).String() {
		t.Errorf("got %v", mac)
	}
}
