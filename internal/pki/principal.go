package pki

import (
	"slices"
	"strings"

	"drover/internal/errs"
)

// Roles say what sort of peer a principal is.
const (
	RoleWorker      = "worker"
	RoleCoordinator = "coordinator"
	RoleOperator    = "operator" // a person; Level says what they may do
	RoleLapsed      = "lapsed"   // a worker known by its key, whose certificates have expired: it may renew them and nothing else
	RoleJoin        = "join"     // the holder of a token, who may ask to become what Level says (a role) and nothing else
)

// Levels of an operator, each of which may do all that the one before may.
const (
	LevelViewer   = "viewer"
	LevelOperator = "operator"
	LevelAdmin    = "admin"
)

// levels lists what may stand in Level, by role; the order is that of their power.
var levels = map[string][]string{
	RoleWorker:      {""},
	RoleCoordinator: {""},
	RoleOperator:    {LevelViewer, LevelOperator, LevelAdmin},
	RoleJoin:        {RoleWorker, RoleCoordinator},
	RoleLapsed:      {""},
	RoleTransfer:    {""},
}

// MaxName bounds a principal's name, in bytes.
const MaxName = 64

// Principal is who a peer is. Its text form, "worker:alpha" or "operator:alice:admin", is what stands in a certificate, in
// host certificates too: a worker can therefore never pass for a coordinator of the same name.
type Principal struct {
	Role  string
	Name  string
	Level string
}

// Worker is the principal of a host's daemon.
func Worker(name string) Principal { return Principal{Role: RoleWorker, Name: name} }

// Coordinator is the principal of a coordinator's daemon.
func Coordinator(name string) Principal { return Principal{Role: RoleCoordinator, Name: name} }

func (p Principal) String() string {
	if p.Level == "" {
		return p.Role + ":" + p.Name
	}
	return p.Role + ":" + p.Name + ":" + p.Level
}

// AtLeast says whether p is an operator of that level or a higher one.
func (p Principal) AtLeast(level string) bool {
	have, want := slices.Index(levels[RoleOperator], p.Level), slices.Index(levels[RoleOperator], level)
	return p.Role == RoleOperator && want >= 0 && have >= want
}

// ParsePrincipal reads the text form and accepts only what Valid accepts.
func ParsePrincipal(s string) (Principal, error) {
	if len(s) > 4*MaxName {
		return Principal{}, errs.New(errs.Invalid, "a principal of %d bytes is too long", len(s))
	}
	role, rest, _ := strings.Cut(s, ":")
	name, level, _ := strings.Cut(rest, ":")
	p := Principal{Role: role, Name: name, Level: level}
	if err := p.Valid(); err != nil {
		return Principal{}, err
	}
	if p.String() != s {
		return Principal{}, errs.New(errs.Invalid, "principal %q is not in its plain form %q", s, p)
	}
	return p, nil
}

// Valid says whether p's role, name and level are known and well formed.
func (p Principal) Valid() error {
	allowed, ok := levels[p.Role]
	if !ok {
		return errs.New(errs.Invalid, "principal %q: unknown role %q", p, p.Role).
			WithNext("name a peer with its role, as in worker:alpha or coordinator:c1")
	}
	if err := ValidName(p.Name); err != nil {
		return errs.New(errs.Invalid, "principal %q: %w", p, err)
	}
	if !slices.Contains(allowed, p.Level) {
		return errs.New(errs.Invalid, "principal %q: level %q is none of %q", p, p.Level, allowed)
	}
	return nil
}

// ValidName says whether a host's or an operator's name is well formed: 1 to MaxName of [A-Za-z0-9._@-], not beginning with
// a dot or a dash.
func ValidName(name string) error {
	if len(name) == 0 || len(name) > MaxName {
		return errs.New(errs.Invalid, "a name has 1 to %d characters, not %d", MaxName, len(name))
	}
	for i, c := range []byte(name) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_'
		if !letter && (i == 0 || !strings.ContainsRune(".@-", rune(c))) {
			return errs.New(errs.Invalid, "name %q: only letters, digits, _ and (not first) . @ - are allowed", name)
		}
	}
	return nil
}
