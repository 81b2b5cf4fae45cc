package configs

import (
	"os"
	"path/filepath"
	"time"

	"golang.org/x/crypto/ssh"

	"drover/internal/errs"
	"drover/internal/migration"
)

// Client configures the operator's verbs.
type Client struct {
	Coordinators []string `yaml:"coordinators" help:"host:port of the coordinators, tried in this order"`
	Authority    string   `yaml:"authority" help:"the cluster's authority: one line, ssh-ed25519 and the key, as drover cluster init prints it"`
	Identity     string   `yaml:"identity" help:"file of your private SSH key; empty: the keys in your SSH agent"`
	Migrate      Migrate  `yaml:"migrate"`
}

// Migrate is what `drover migrate` and `drover drain` ask for where no flag says otherwise.
type Migrate struct {
	Policy      string        `yaml:"policy" help:"gentle, fast or must-move: what is done where neither a flag nor a key below says otherwise"`
	Downtime    time.Duration `yaml:"downtime" help:"cut over once the predicted blackout is within it"`
	MaxRounds   int           `yaml:"max_rounds" help:"rounds of copying while the tree runs, at most; 0: what the policy says"`
	Probation   time.Duration `yaml:"probation" help:"how long the source is held after the release, so that it can take the tree back"`
	Deadline    time.Duration `yaml:"deadline" help:"for a whole migration, up to the verdict"`
	Bandwidth   Size          `yaml:"bandwidth" help:"bytes a second on the wire; 0: what the policy says"`
	Fill        string        `yaml:"fill" help:"held: memory is in place before the tree runs; running: it is filled in while it runs; empty: by its size"`
	Compression string        `yaml:"compression" help:"none, s2 or zstd; empty: chosen by what the link and the processors can do"`
	Tracker     string        `yaml:"tracker" help:"wp, softdirty or hash; empty: the best that the source's kernel offers"`
}

// DefaultClient is what an operator's verbs do that were told nothing.
func DefaultClient() Client {
	return Client{
		Coordinators: []string{},
		Migrate: Migrate{
			Policy:    "fast",
			Downtime:  migration.DefaultDowntime,
			Probation: migration.DefaultProbation,
			Deadline:  migration.DefaultDeadline,
		},
	}
}

// Validate says everything that is impossible about c. A client that knows no cluster yet is possible.
func (c Client) Validate() error {
	var p Problems
	p.addresses("coordinators", c.Coordinators)
	if c.Authority != "" {
		if _, _, _, _, err := ssh.ParseAuthorizedKey([]byte(c.Authority)); err != nil {
			p.add("authority", "%q is not a public key such as `ssh-ed25519 AAAA…`", c.Authority)
		}
	}
	if c.Identity != "" && !filepath.IsAbs(c.Identity) {
		p.add("identity", "%q is not an absolute path", c.Identity)
	}
	most := func(key string, have, most time.Duration) {
		if have <= 0 || have > most {
			p.add(key, "%s is not more than 0 and at most %s", have, most)
		}
	}
	most("migrate.downtime", c.Migrate.Downtime, migration.MaxDowntime)
	most("migrate.probation", c.Migrate.Probation, migration.MaxProbation)
	most("migrate.deadline", c.Migrate.Deadline, migration.MaxDeadline)
	if r := c.Migrate.MaxRounds; r < 0 || r > 64 {
		p.add("migrate.max_rounds", "%d is not between 1 and 64", r)
	}
	if c.Migrate.Bandwidth < 0 {
		p.add("migrate.bandwidth", "%d is negative", int64(c.Migrate.Bandwidth))
	}
	p.oneOf("migrate.policy", c.Migrate.Policy, "gentle", "fast", "must-move")
	p.oneOf("migrate.fill", c.Migrate.Fill, "", "held", "running")
	p.oneOf("migrate.compression", c.Migrate.Compression, "", "none", "s2", "zstd")
	p.oneOf("migrate.tracker", c.Migrate.Tracker, "", "wp", "softdirty", "hash")
	return p.err()
}

// ClientFile is where the operator's configuration is looked for when nothing else is said.
func ClientFile() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", errs.New(errs.NotFound, "find your configuration: %w", err).WithNext("name the file with --config")
	}
	return filepath.Join(dir, "drover", "client.yaml"), nil
}
