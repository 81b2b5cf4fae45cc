package record

import (
	"slices"
	"time"

	"drover/internal/errs"
)

// ClusterKey is a public key of the cluster's authority. Usually there is one, and the record need not name it; while the cluster
// changes its key there are two, both trusted, of which one signs.
type ClusterKey struct {
	Key   string    `json:"key"` // authorized_keys form
	Since time.Time `json:"since"`
	Signs bool      `json:"signs,omitempty"`
}

// KeyAdd has a new key trusted beside the one that signs.
type KeyAdd struct {
	Old string `json:"old"` // that signs: the record learns it here, before a cluster's first change
	New string `json:"new"`
}

func (KeyAdd) kind() Type      { return TypeKeyAdd }
func (KeyAdd) subject() string { return "cluster" }

func (k KeyAdd) apply(s *State, c meta) error {
	switch {
	case k.Old == "" || k.New == "" || k.Old == k.New:
		return errs.New(errs.Invalid, "a change of the cluster's key needs two of them")
	case len(s.Keys) > 1:
		return conflict("the cluster's key is being changed already").WithNext("drover status says how far it is; drover cluster rotate-keys --help how to go on")
	case len(s.Keys) == 1 && s.Keys[0].Key != k.Old:
		return conflict("the key that signs is another one").WithNext("take this coordinator out and join it again: it has not the cluster's key")
	}
	old := ClusterKey{Key: k.Old, Since: c.time, Signs: true}
	if len(s.Keys) == 1 {
		old = s.Keys[0]
	}
	s.Keys = []ClusterKey{old, {Key: k.New, Since: c.time}}
	return nil
}

// KeySwitch has the newer of two keys sign.
type KeySwitch struct {
	To string `json:"to"`
}

func (KeySwitch) kind() Type      { return TypeKeySwitch }
func (KeySwitch) subject() string { return "cluster" }

func (k KeySwitch) apply(s *State, c meta) error {
	if len(s.Keys) != 2 || s.Keys[1].Key != k.To || s.Keys[1].Signs {
		return conflict("there is no new key to sign with").WithNext("drover cluster rotate-keys makes one")
	}
	s.Keys = []ClusterKey{{Key: s.Keys[0].Key, Since: s.Keys[0].Since}, {Key: k.To, Since: c.time, Signs: true}}
	return nil
}

// KeyRetire has a key trusted no more that does not sign: the old one after the switch, or the new one before it.
type KeyRetire struct {
	Key string `json:"key"`
}

func (KeyRetire) kind() Type      { return TypeKeyRetire }
func (KeyRetire) subject() string { return "cluster" }

func (k KeyRetire) apply(s *State, _ meta) error {
	i := slices.IndexFunc(s.Keys, func(have ClusterKey) bool { return have.Key == k.Key && !have.Signs })
	if i < 0 {
		return conflict("that key is not trusted, or it is the one that signs")
	}
	s.Keys = slices.Delete(slices.Clone(s.Keys), i, i+1)
	return nil
}

// Signing is the key that signs, "" if the record need not name it.
func (s *State) Signing() string {
	for _, k := range s.Keys {
		if k.Signs {
			return k.Key
		}
	}
	return ""
}
