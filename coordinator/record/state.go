package record

import (
	"maps"
	"slices"
	"time"

	"drover/coordinator/api"
	"drover/internal/migration"
	"drover/internal/workload"
	workerapi "drover/worker/api"
)

// State is the whole record. Values in its maps are never changed in place but replaced, so that a copy of the maps is a
// consistent view that stays as it was.
type State struct {
	Cluster    string                     `json:"cluster"`
	Index      uint64                     `json:"index"` // of the last command that changed something
	Members    map[string]Member          `json:"members"`
	Hosts      map[string]Host            `json:"hosts"`
	Workloads  map[string]Workload        `json:"workloads"`
	Migrations map[migration.ID]Migration `json:"migrations"`
	Plans      map[string]api.Plan        `json:"plans"`
	Tokens     map[string]Token           `json:"tokens"` // by hash; the token itself is nowhere
	Operators  map[string]api.Operator    `json:"operators"`
	Keys       []ClusterKey               `json:"keys,omitempty"` // of the authority, oldest first; none until it was first changed
	Audit      []Entry                    `json:"audit"`          // the newest maxAudit, oldest first
	Applied    []string                   `json:"applied"`        // ids of the newest commands: one delivered twice acts once
	// Retired is the highest epoch of any workload that was removed. New ones begin above it: hosts remember a removed workload's
	// epoch, and would take another of its name for an order that is out of date.
	Retired migration.Epoch `json:"retired,omitempty"`
}

// Bounds of what is kept for looking back.
const (
	maxAudit   = 1000
	maxApplied = 1000
	maxEnded   = 1000 // ended migrations; those under way are always kept
)

// Member is a coordinator.
type Member struct {
	Name    string    `json:"name"`
	Address string    `json:"address"`
	Joined  time.Time `json:"joined"`
}

// Host is a machine that runs a worker.
type Host struct {
	Name      string    `json:"name"`
	Address   string    `json:"address"`
	Cordoned  bool      `json:"cordoned,omitempty"`
	Bandwidth int64     `json:"bandwidth,omitempty"` // what its sources may send together, bytes a second; 0 is no limit
	Joined    time.Time `json:"joined"`
	Key       string    `json:"key,omitempty"` // that it joined with, authorized_keys form; no other is certified for it again
}

// Life is how far a workload's life has come in the record's eyes.
type Life string

const (
	Starting Life = "starting" // its host was told to start it; whether it did is not known
	Started  Life = "started"
	Exited   Life = "exited"
)

// Workload is a workload and who owns it.
type Workload struct {
	Name      string          `json:"name"`
	Spec      workload.Spec   `json:"spec"`
	Owner     string          `json:"owner"`
	Epoch     migration.Epoch `json:"epoch"`
	Migration migration.ID    `json:"migration,omitempty"` // the one under way
	Life      Life            `json:"life"`
	Created   time.Time       `json:"created"`
	Since     time.Time       `json:"since"` // its owner, epoch or life last changed then
	ExitCode  *int            `json:"exit_code,omitempty"`
	Signal    int             `json:"signal,omitempty"`
	ExitedAt  time.Time       `json:"exited_at,omitzero"`
}

// Migration is one migration as it is replicated.
type Migration struct {
	ID         migration.ID    `json:"id"`
	Workload   string          `json:"workload"`
	Source     string          `json:"source"`
	Target     string          `json:"target"`
	SourceBoot string          `json:"source_boot,omitempty"` // boot ids at admission: another one proves every tree dead
	TargetBoot string          `json:"target_boot,omitempty"`
	Epoch      migration.Epoch `json:"epoch"` // the workload's, at admission
	Phase      migration.Phase `json:"phase"`
	Reason     string          `json:"reason,omitempty"`
	Next       string          `json:"next,omitempty"`
	Note       string          `json:"note,omitempty"` // what it waits for, if it does
	// ProbationOver is recorded before the source is told to end its tree.
	ProbationOver bool                  `json:"probation_over,omitempty"`
	Passed        *api.Transition       `json:"passed,omitempty"`      // the entry by which it was over
	Resolutions   []api.Resolution      `json:"resolutions,omitempty"` // what people have said of hosts that could not: each decision at most once
	Options       workerapi.MoveOptions `json:"options"`
	Plan          string                `json:"plan,omitempty"`
	By            string                `json:"by,omitempty"`
	Deadline      time.Time             `json:"deadline"`               // for the verdict
	Predicted     time.Duration         `json:"predicted_ns,omitempty"` // the blackout, when the freeze was granted
	Expected      workerapi.Expected    `json:"expected,omitzero"`      // its parts: what the next moves learn from
	Blackout      time.Duration         `json:"blackout_ns,omitempty"`
	Transitions   []api.Transition      `json:"transitions"`
	Findings      []workerapi.Finding   `json:"findings,omitempty"`
}

// Host is the host of that role.
func (m Migration) Host(r migration.Role) string {
	if r == migration.Source {
		return m.Source
	}
	return m.Target
}

// Boot is the boot id that the host of that role had at admission, "" if it is not recorded.
func (m Migration) Boot(r migration.Role) string {
	if r == migration.Source {
		return m.SourceBoot
	}
	return m.TargetBoot
}

// Rebooted says whether the boot id that the host of that role says, "" if it has said none, proves that it has booted since admission.
func (m Migration) Rebooted(r migration.Role, said string) bool {
	admitted := m.Boot(r)
	return admitted != "" && said != "" && said != admitted
}

// Since is when the migration entered its phase.
func (m Migration) Since() time.Time { return m.Transitions[len(m.Transitions)-1].Time }

// Entered is when the migration entered phase p; the zero time if it never did.
func (m Migration) Entered(p migration.Phase) time.Time {
	for _, t := range m.Transitions {
		if t.Phase == p {
			return t.Time
		}
	}
	return time.Time{}
}

// Verdict is the migration's verdict; unlike Phase.Verdict it still tells Reclaim from Abort once all is rolled back.
func (m Migration) Verdict() migration.Verdict {
	if m.Phase == migration.RolledBack && !m.Entered(migration.Reclaimed).IsZero() {
		return migration.Reclaim
	}
	return m.Phase.Verdict()
}

// Token is what is kept of a joining token.
type Token struct {
	Hash    string    `json:"hash"`
	Role    string    `json:"role"`
	Expires time.Time `json:"expires"`
	UsedBy  string    `json:"used_by,omitempty"` // the name that joined with it
	UsedKey string    `json:"used_key,omitempty"`
}

// Entry is one line of the audit trail.
type Entry struct {
	Index uint64    `json:"index"`
	Time  time.Time `json:"time"`
	By    string    `json:"by,omitempty"`
	What  Type      `json:"what"`
	On    string    `json:"on,omitempty"`
}

// New is an empty record.
func New() *State {
	s := &State{}
	s.fill()
	return s
}

// fill makes the maps that decoding left nil.
func (s *State) fill() {
	if s.Members == nil {
		s.Members = map[string]Member{}
	}
	if s.Hosts == nil {
		s.Hosts = map[string]Host{}
	}
	if s.Workloads == nil {
		s.Workloads = map[string]Workload{}
	}
	if s.Migrations == nil {
		s.Migrations = map[migration.ID]Migration{}
	}
	if s.Plans == nil {
		s.Plans = map[string]api.Plan{}
	}
	if s.Tokens == nil {
		s.Tokens = map[string]Token{}
	}
	if s.Operators == nil {
		s.Operators = map[string]api.Operator{}
	}
}

// Clone is a view of the record that later commands do not change.
func (s *State) Clone() *State {
	c := *s
	c.Members = maps.Clone(s.Members)
	c.Hosts = maps.Clone(s.Hosts)
	c.Workloads = maps.Clone(s.Workloads)
	c.Migrations = maps.Clone(s.Migrations)
	c.Plans = maps.Clone(s.Plans)
	c.Tokens = maps.Clone(s.Tokens)
	c.Operators = maps.Clone(s.Operators)
	c.Keys = slices.Clone(s.Keys)
	return &c
}
