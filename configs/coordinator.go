package configs

import "path/filepath"

// Coordinator configures one of the cluster's coordinators.
type Coordinator struct {
	Name      string `yaml:"name" help:"this coordinator's name in the cluster; empty: the machine's host name"`
	Listen    string `yaml:"listen" help:"address to serve operators, workers and the other coordinators on"`
	Advertise string `yaml:"advertise" help:"host:port at which the others reach this coordinator; empty: host name and the port of listen"`
	StateDir  string `yaml:"state_dir" help:"the replicated record, the cluster's authority and this coordinator's identity"`
	Log       Log    `yaml:"log"`
}

// DefaultCoordinator is what a coordinator does that was told nothing.
func DefaultCoordinator() Coordinator {
	return Coordinator{Listen: ":7201", StateDir: "/var/lib/drover-coordinator", Log: defaultLog}
}

// Validate says everything that is impossible about c.
func (c Coordinator) Validate() error {
	var p Problems
	p.name("name", c.Name)
	p.address("listen", c.Listen, true)
	p.address("advertise", c.Advertise, c.Advertise == "")
	p.directory("state_dir", c.StateDir)
	p.log("log", c.Log)
	return p.err()
}

// HostName is the name this coordinator goes by.
func (c Coordinator) HostName() string { return hostName(c.Name) }

// Address is where the others reach this coordinator.
func (c Coordinator) Address() string { return advertised(c.Advertise, c.Listen) }

// IdentityDir holds the coordinator's key and certificates.
func (c Coordinator) IdentityDir() string { return filepath.Join(c.StateDir, "identity") }

// AuthorityFile holds the cluster's authority: whoever can read it is the cluster.
func (c Coordinator) AuthorityFile() string { return filepath.Join(c.StateDir, "authority") }

// FoundingFile holds what `drover cluster init` decided, until the record has it.
func (c Coordinator) FoundingFile() string { return filepath.Join(c.StateDir, "founding.json") }
