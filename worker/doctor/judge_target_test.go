package doctor

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"drover/engine"
	"drover/internal/workload"
	workerapi "drover/worker/api"
)

const libc = "/usr/lib/x86_64-linux-gnu/libc.so.6"

// tree is an inventory that fits the host of fitting.
func tree(change ...func(*workerapi.Inventory)) workerapi.Inventory {
	inv := workerapi.Inventory{
		Workload: "redis", Host: "alpha", Spec: workload.Spec{Name: "redis", Kind: workload.Adopt},
		Engine:    engine.Features{Version: "4.2.1", Kernel: "6.12.41+deb13-amd64"},
		CPU:       workerapi.CPU{Features: []string{"avx2", "erms", "sse2"}},
		Processes: []workerapi.Process{{Pid: 700, TIDs: []int{700, 701}, UID: 100, Comm: "redis-server", Caps: 1 << 21}},
		Files:     []workerapi.File{{Path: libc, Size: 2000, Mode: unix.S_IFREG | 0o755, BuildID: "aabbccddeeff0011", Mapped: true}},
		Listeners: []workerapi.Listener{{Proto: "tcp", Address: "0.0.0.0", Port: 6379}},
		RSS:       100 << 20,
	}
	for _, c := range change {
		c(&inv)
	}
	return inv
}

func fitting(change ...func(*place)) place {
	p := place{
		facts: workerapi.HostFacts{Name: "beta", Engine: engine.Features{Version: "4.2.1", Kernel: "6.12.41+deb13-amd64"}, MemoryFree: 1 << 30, DiskFree: 1 << 30},
		cpu:   workerapi.CPU{Model: "Old Xeon", Features: []string{"avx2", "erms", "sse2"}},
		here:  map[string]workload.State{}, dirs: map[string]bool{}, taken: map[int]string{}, addrs: map[netip.Addr]bool{}, packages: map[string]string{},
		files: map[string]workerapi.File{libc: {Path: libc, Size: 2000, Mode: unix.S_IFREG | 0o755, BuildID: "aabbccddeeff0011"}},
		users: map[int]bool{100: true}, link: "eth0", caps: setOf(neededNames()...),
	}
	for _, c := range change {
		c(&p)
	}
	return p
}

func withAddress(inv *workerapi.Inventory) { inv.Spec.Address = "10.0.0.50/24" }

func TestAHostThatFitsIsGoOnEverything(t *testing.T) {
	for _, f := range judgeTarget(tree(withAddress), fitting()) {
		if f.Verdict != workerapi.Go || f.Host != "beta" || f.Detail == "" {
			t.Errorf("%+v", f)
		}
	}
}

func TestEachThingThatIsWrongIsOneFinding(t *testing.T) {
	file := func(change func(*workerapi.File)) func(*place) {
		return func(p *place) { f := p.files[libc]; change(&f); p.files[libc] = f }
	}
	nothing := func(*workerapi.Inventory) {}
	for _, c := range []struct {
		why    string
		inv    func(*workerapi.Inventory)
		place  func(*place)
		check  string
		detail string
		mend   string
	}{
		{"it is the source", nothing, func(p *place) { p.facts.Name = "alpha" }, "name", "on this host already", "another target"},
		{"a namesake lives here", nothing, func(p *place) { p.here["redis"] = workload.Running }, "name", "is running here", "drover rm redis"},
		{"no CRIU", nothing, func(p *place) { p.facts.Engine.Version = "" }, "criu", "no working CRIU", "install CRIU 4.2.1"},
		{"a CRIU too old", nothing, func(p *place) { p.facts.Engine.Unfit = "CRIU 3.17.1 at /usr/sbin/criu is too old" }, "criu", "3.17.1", "install CRIU 4.2"},
		{"a CRIU too old at the source", func(i *workerapi.Inventory) { i.Engine.Unfit = "CRIU 3.17.1 at /usr/sbin/criu is too old" }, nil, "criu", "on alpha: CRIU 3.17.1", "install CRIU 4.2"},
		{"another CRIU", nothing, func(p *place) { p.facts.Engine.Version = "4.1.1" }, "criu", "CRIU 4.1.1 here, 4.2.1 on alpha", "install CRIU 4.2.1"},
		{"a kernel too old", nothing, func(p *place) { p.facts.Engine.Kernel = "5.10.0-9" }, "kernel", "restartable sequences", "Linux 5.13"},
		{"a processor without", nothing, func(p *place) { p.cpu.Features = []string{"sse2"} }, "cpu", "(Old Xeon) lacks avx2, which", "GLIBC_TUNABLES"},
		{"too little memory", func(i *workerapi.Inventory) { i.RSS = 600 << 20 }, nil, "memory", "1024 MiB free, 1264 MiB needed", "another target"},
		{"too little disk", func(i *workerapi.Inventory) { i.Dirty = 2 << 30 }, nil, "disk", "2048 MiB are carried", "shared"},
		{"no root file system", func(i *workerapi.Inventory) { i.Spec.Rootfs = "/srv/redis" }, nil, "directories", "/srv/redis", "alpha"},
		{"no shared volume", func(i *workerapi.Inventory) {
			i.Spec.Volumes = []workload.Volume{{Host: "/srv/data", Inside: "/data", Shared: true}, {Host: "/srv/carried", Inside: "/more"}}
		}, nil, "directories", "/srv/data", "alpha"},
		{"a file is missing", nothing, func(p *place) { delete(p.files, libc) }, "files", libc + " is not here", "copy it from alpha"},
		{"a file of another size", nothing, file(func(f *workerapi.File) { f.Size = 1 }), "files", "has 1 bytes here, 2000 on the source", "copy it"},
		{"a file of another mode", nothing, file(func(f *workerapi.File) { f.Mode = unix.S_IFREG | 0o775 }), "files", "has mode 0775 here, 0755", "copy it"},
		{"a directory in its place", nothing, file(func(f *workerapi.File) { f.Mode = unix.S_IFDIR | 0o755 }), "files", "another kind of file", "copy it"},
		{"another build", nothing, file(func(f *workerapi.File) { f.BuildID = "0011" }), "files", "build-id 0011 here, aabbccddeeff on the source", "copy it"},
		{"another build of a package", nothing, func(p *place) { delete(p.files, libc); p.packages[libc] = "libc6:amd64" }, "files", "is not here", "package libc6:amd64"},
		{"a log that grew", func(i *workerapi.Inventory) { i.Files[0].Append, i.Files[0].BuildID, i.Files[0].Size = true, "", 3000 }, nil, "files", "2000 bytes here", "volume"},
		{"a thread's pid is taken", nothing, func(p *place) { p.taken[701] = "cron" }, "pids", "701 (cron)", "drover run"},
		{"a port is taken", nothing, func(p *place) { p.ports = []workerapi.Listener{{Proto: "tcp6", Address: "::", Port: 6379}} }, "ports", "tcp port 6379 is taken here, on ::", "address of its own"},
		{"an address of the source's", func(i *workerapi.Inventory) { i.Listeners[0].Address = "10.0.0.1" }, nil, "ports", "10.0.0.1, which this host does not have", "all addresses"},
		{"no link for the address", withAddress, func(p *place) { p.linkErr = "no link of this host has an address in the subnet" }, "address", "no link", "10.0.0.0/24"},
		{"the address is the host's own", withAddress, func(p *place) { p.addrs[netip.MustParseAddr("10.0.0.50")] = true }, "address", "this host's own", "take it off"},
		{"a capability that the worker has not", func(i *workerapi.Inventory) { i.Processes[0].Caps |= setOf("SYS_MODULE") }, nil, "capabilities",
			"process 700 (redis-server) holds CAP_SYS_MODULE, which", "CapabilityBoundingSet=CAP_SYS_MODULE to"},
		{"one that the tree may still gain", func(i *workerapi.Inventory) { i.Processes[0].Bounds = ^uint64(0) >> 23 }, nil, "capabilities",
			"process 700 (redis-server) may gain CAP_LINUX_IMMUTABLE, CAP_NET_BROADCAST", "CapabilityBoundingSet=CAP_LINUX_IMMUTABLE CAP_NET_BROADCAST"},
		{"a worker that CRIU cannot restore under", nothing, func(p *place) { p.caps &^= setOf("SYS_TIME", "MKNOD") }, "worker",
			"the worker here lacks CAP_SYS_TIME (a tree's clocks go on where they were, in a time namespace), CAP_MKNOD (", "CapabilityBoundingSet=CAP_SYS_TIME CAP_MKNOD to"},
		{"another machine has the address", withAddress, func(p *place) { p.holders = []net.HardwareAddr{{2, 0, 0, 0, 0, 9}} }, "address", "answered for by 02:00:00:00:00:09, which is not alpha", "find who has it"},
	} {
		p := fitting()
		if c.place != nil {
			c.place(&p)
		}
		var no []workerapi.Finding
		for _, f := range judgeTarget(tree(c.inv), p) {
			if f.Verdict == workerapi.NoGo {
				no = append(no, f)
			}
		}
		if len(no) != 1 || no[0].Check != c.check || !strings.Contains(no[0].Detail, c.detail) || !strings.Contains(no[0].Mend, c.mend) {
			t.Errorf("%s: got %+v, want one NO-GO on %s with %q, mended by %q", c.why, no, c.check, c.detail, c.mend)
		}
	}
}

func TestWhatIsDifferentButDoesNotMatterIsGo(t *testing.T) {
	for _, c := range []struct {
		why   string
		inv   func(*workerapi.Inventory)
		place func(*place)
		check string
		says  string
	}{
		{"a namesake that has exited", nil, func(p *place) { p.here["redis"] = workload.Exited }, "name", "no workload of that name"},
		{"a host that withholds CAP_SYS_RESOURCE", nil, func(p *place) { p.caps &^= setOf("SYS_RESOURCE") }, "capabilities", "has every capability"},
		{"a newer kernel", nil, func(p *place) { p.facts.Engine.Kernel = "7.0.1" }, "kernel", "not older"},
		{"an older kernel that has all", nil, func(p *place) { p.facts.Engine.Kernel = "6.1.0" }, "kernel", "nothing that is known to matter"},
		{"fast string instructions", nil, func(p *place) { p.cpu.Features = []string{"avx2", "sse2"} }, "cpu", "does not notice: erms"},
		{"more features", nil, func(p *place) { p.cpu.Features = append(p.cpu.Features, "avx512f") }, "cpu", "all that the source's has"},
		{"taken pids beside a pid namespace of its own", func(i *workerapi.Inventory) { i.OwnPidNS = true }, func(p *place) { p.taken[700] = "cron" }, "pids", "own pid namespace"},
		{"the same port over UDP", nil, func(p *place) { p.ports = []workerapi.Listener{{Proto: "udp", Address: "0.0.0.0", Port: 6379}} }, "ports", "are free"},
		{"a user that is not known", nil, func(p *place) { p.users = nil }, "users", "uid 100"},
	} {
		inv, p := tree(), fitting()
		if c.inv != nil {
			c.inv(&inv)
		}
		c.place(&p)
		all := judgeTarget(inv, p)
		i := slices.IndexFunc(all, func(f workerapi.Finding) bool { return f.Check == c.check })
		if i < 0 || all[i].Verdict != workerapi.Go || !strings.Contains(all[i].Detail, c.says) {
			t.Errorf("%s: got %+v, want GO on %s with %q", c.why, all, c.check, c.says)
		}
		if f, no := find(all, c.check, workerapi.NoGo); no {
			t.Errorf("%s: %+v", c.why, f)
		}
	}
}

func TestManyFilesThatDifferDoNotDrownTheRest(t *testing.T) {
	inv := tree(func(i *workerapi.Inventory) {
		for range 100 {
			i.Files = append(i.Files, workerapi.File{Path: "/nowhere", Mode: unix.S_IFREG})
		}
	})
	var files []workerapi.Finding
	for _, f := range judgeTarget(inv, fitting()) {
		if f.Check == "files" {
			files = append(files, f)
		}
	}
	if len(files) != 21 || !strings.Contains(files[20].Detail, "80 more files differ") {
		t.Errorf("%d findings, the last %+v", len(files), files[len(files)-1])
	}
}

func TestPortsClash(t *testing.T) {
	on := func(proto, addr string, port int) workerapi.Listener {
		return workerapi.Listener{Proto: proto, Address: addr, Port: port}
	}
	for _, c := range []struct {
		a, b workerapi.Listener
		want bool
	}{
		{on("tcp", "0.0.0.0", 80), on("tcp", "10.0.0.1", 80), true},
		{on("tcp", "10.0.0.1", 80), on("tcp", "10.0.0.1", 80), true},
		{on("tcp", "10.0.0.1", 80), on("tcp", "10.0.0.2", 80), false},
		{on("tcp", "10.0.0.1", 80), on("tcp6", "::", 80), true},
		{on("tcp6", "fd00::1", 80), on("tcp", "0.0.0.0", 80), false},
		{on("mptcp", "0.0.0.0", 80), on("tcp", "0.0.0.0", 80), true},
		{on("tcp", "0.0.0.0", 80), on("udp", "0.0.0.0", 80), false},
		{on("tcp", "0.0.0.0", 80), on("tcp", "0.0.0.0", 81), false},
	} {
		if clash(c.a, c.b) != c.want || clash(c.b, c.a) != c.want {
			t.Errorf("%v and %v: want %v both ways", c.a, c.b, c.want)
		}
	}
}

func TestPortsAreReadFromProc(t *testing.T) {
	const tcp = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:18EB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 3200000A:18EB 0900000A:C350 01 00000000:00000000 00:00000000 00000000     0        0 2 1 0 20 4 0 10 -1
`
	const udp6 = ` 1: 000000000000000000000000010000FE:0035 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 3 2 0 0
torn
`
	want := []workerapi.Listener{{Proto: "tcp", Address: "127.0.0.1", Port: 6379}}
	if got := parsePorts("tcp", tcp); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := parsePorts("udp6", udp6); len(got) != 1 || got[0].Port != 53 {
		t.Errorf("got %v", got)
	}
}

func TestKernelVersionsCompareByNumber(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"5.9.0", "5.10.0", true}, {"5.10.0", "5.9.0", false}, {"6.12.41+deb13-amd64", "6.12.9", false}, {"6.1", "6.12", true}, {"", "5.2", true},
	} {
		if older(c.a, c.b) != c.want {
			t.Errorf("%s older than %s: want %v", c.a, c.b, c.want)
		}
	}
}
