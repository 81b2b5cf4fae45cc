package configs

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"drover/internal/workload"
)

// Worker configures a host's worker.
type Worker struct {
	Name         string        `yaml:"name" help:"this host's name in the cluster; empty: the machine's host name"`
	Listen       string        `yaml:"listen" help:"address to serve coordinators and other workers on"`
	Advertise    string        `yaml:"advertise" help:"host:port at which the others reach this worker; empty: host name and the port of listen"`
	StateDir     string        `yaml:"state_dir" help:"journal, workload records, output and this worker's identity; survives a reboot"`
	RunDir       string        `yaml:"run_dir" help:"sockets and images in memory; goes with a reboot"`
	Coordinators []string      `yaml:"coordinators" help:"host:port of the coordinators, any of which answers"`
	CRIU         string        `yaml:"criu" help:"path of criu; empty: looked up in PATH"`
	MemoryLimit  Size          `yaml:"memory_limit" help:"memory that trees moving here may take, in all; 0: what the host has free"`
	StoreMemory  Size          `yaml:"store_memory" help:"memory that the pages of trees moving here may take before the trees are rebuilt, in all; 0: what is free"`
	KeepStore    time.Duration `yaml:"keep_store" help:"how long pages of a tree that has left, or did not come after all, are kept in memory for when it comes again; 0: not at all"`
	StoreSpill   string        `yaml:"store_spill" help:"directory on a disk for those pages that have no room in memory, encrypted; empty: such a tree is refused"`
	CopyCPU      int           `yaml:"copy_cpu" help:"how much of this host's processors copying may use while the tree runs, in percent of all of them; 0: no limit"`
	CopyNice     int           `yaml:"copy_nice" help:"nice value, 0 to 19, that the worker has while a tree is copied that runs; the cut-over has the usual one"`
	Log          Log           `yaml:"log"`
}

// mostNice is the lowest priority there is: setpriority(2).
const mostNice = 19

// DefaultWorker is what a worker does that was told nothing.
func DefaultWorker() Worker {
	return Worker{
		Listen:       ":7202",
		StateDir:     "/var/lib/drover",
		RunDir:       "/run/drover",
		Coordinators: []string{},
		KeepStore:    10 * time.Minute,
		Log:          defaultLog,
	}
}

// Validate says everything that is impossible about c.
func (c Worker) Validate() error {
	var p Problems
	p.name("name", c.Name)
	p.address("listen", c.Listen, true)
	p.address("advertise", c.Advertise, c.Advertise == "")
	p.directory("state_dir", c.StateDir)
	p.directory("run_dir", c.RunDir)
	if c.StateDir == c.RunDir && c.RunDir != "" {
		p.add("run_dir", "is the same directory as state_dir: one survives a reboot and the other must not")
	}
	p.addresses("coordinators", c.Coordinators)
	if c.CRIU != "" && strings.Contains(c.CRIU, "/") && !filepath.IsAbs(c.CRIU) {
		p.add("criu", "%q is not an absolute path", c.CRIU)
	}
	if c.MemoryLimit < 0 {
		p.add("memory_limit", "%d is negative", int64(c.MemoryLimit))
	}
	if c.StoreMemory < 0 {
		p.add("store_memory", "%d is negative", int64(c.StoreMemory))
	}
	if c.KeepStore < 0 {
		p.add("keep_store", "%s is negative", c.KeepStore)
	}
	if c.StoreSpill != "" {
		p.directory("store_spill", c.StoreSpill)
	}
	if c.CopyCPU < 0 || c.CopyCPU > 100 {
		p.add("copy_cpu", "%d is not a part of this host's processors in percent, 0 to 100", c.CopyCPU)
	}
	if c.CopyNice < 0 || c.CopyNice > mostNice {
		p.add("copy_nice", "%d is not a nice value from 0 to %d", c.CopyNice, mostNice)
	}
	p.log("log", c.Log)
	return p.err()
}

// HostName is the name this worker goes by.
func (c Worker) HostName() string { return hostName(c.Name) }

// Address is where the others reach this worker.
func (c Worker) Address() string { return advertised(c.Advertise, c.Listen) }

// IdentityDir holds the worker's key and certificates.
func (c Worker) IdentityDir() string { return filepath.Join(c.StateDir, "identity") }

// hostName is name, or the machine's own name as far as it can name a host: its first label in small letters.
func hostName(name string) string {
	if name != "" {
		return name
	}
	machine, err := os.Hostname()
	if err != nil {
		return ""
	}
	first, _, _ := strings.Cut(strings.ToLower(machine), ".")
	if workload.ValidName("host", first) != nil {
		return ""
	}
	return first
}

// advertised is the address to tell others: what was said, else listen's own, with the machine's name for "all addresses".
func advertised(said, listen string) string {
	if said != "" {
		return said
	}
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		if host, err = os.Hostname(); err != nil {
			host = "localhost"
		}
	}
	return net.JoinHostPort(host, port)
}
