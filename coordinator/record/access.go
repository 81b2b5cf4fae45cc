package record

import (
	"time"

	"drover/coordinator/api"
	"drover/internal/errs"
)

// TokenNew lets one machine join once. Only the token's hash is kept.
type TokenNew struct {
	Hash    string    `json:"hash"`
	Role    string    `json:"role"`
	Expires time.Time `json:"expires"`
}

func (TokenNew) kind() Type        { return TypeTokenNew }
func (t TokenNew) subject() string { return t.Role }

func (t TokenNew) apply(s *State, c meta) error {
	switch {
	case t.Role != "worker" && t.Role != "coordinator":
		return errs.New(errs.Invalid, "a token is for a worker or a coordinator, not for %q", t.Role)
	case t.Hash == "":
		return errs.New(errs.Invalid, "the token has no hash")
	case !t.Expires.After(c.time):
		return errs.New(errs.Invalid, "the token would have expired before it was made")
	}
	if _, ok := s.Tokens[t.Hash]; ok {
		return conflict("this token exists already")
	}
	for hash, old := range s.Tokens { // those long expired are of no use, not even to say that they were used
		if c.time.Sub(old.Expires) > 24*time.Hour {
			delete(s.Tokens, hash)
		}
	}
	s.Tokens[t.Hash] = Token{Hash: t.Hash, Role: t.Role, Expires: t.Expires}
	return nil
}

// useToken is the token as it will be once name has joined with it. A machine whose reply was lost may use its token again,
// under the same name and with the same key: again is then true.
func (s *State) useToken(hash, role, name, key string, now time.Time) (used Token, again bool, err error) {
	t, ok := s.Tokens[hash]
	again = t.UsedBy == name && t.UsedKey == key && t.UsedBy != ""
	switch {
	case !ok || t.Role != role:
		err = errs.New(errs.Forbidden, "%s cannot join: the token is not one of this cluster's for a %s", name, role).WithNext("drover token new --role %s", role)
	case again:
	case t.UsedBy != "":
		err = errs.New(errs.Forbidden, "%s cannot join: the token was used by %s", name, t.UsedBy).WithNext("drover token new --role %s", role)
	case now.After(t.Expires):
		err = errs.New(errs.Forbidden, "%s cannot join: the token expired at %s", name, t.Expires.Format(time.RFC3339)).WithNext("drover token new --role %s", role)
	}
	t.UsedBy, t.UsedKey = name, key
	return t, again, err
}

// OperatorSet lists a person with a role; role "" removes them.
type OperatorSet struct {
	Operator api.Operator `json:"operator"`
}

func (OperatorSet) kind() Type        { return TypeOperatorSet }
func (o OperatorSet) subject() string { return o.Operator.Name }

func (o OperatorSet) apply(s *State, _ meta) error {
	op := o.Operator
	old, known := s.Operators[op.Name]
	switch op.Role {
	case "":
		if !known {
			return unknown("operator", op.Name).WithNext("drover operator list")
		}
	case "viewer", "operator", "admin":
		if op.Name == "" || op.Key == "" {
			return errs.New(errs.Invalid, "an operator needs a name and a key")
		}
		for name, other := range s.Operators {
			if name != op.Name && other.Key == op.Key {
				return conflict("the key of %s is another operator's", op.Name)
			}
		}
	default:
		return errs.New(errs.Invalid, "an operator is a viewer, an operator or an admin, not %q", op.Role)
	}
	if known && old.Role == "admin" && op.Role != "admin" && s.admins() == 1 {
		return conflict("%s is the last admin", op.Name).WithNext("make another admin first")
	}
	if op.Role == "" {
		delete(s.Operators, op.Name)
	} else {
		s.Operators[op.Name] = op
	}
	return nil
}

func (s *State) admins() int {
	n := 0
	for _, o := range s.Operators {
		if o.Role == "admin" {
			n++
		}
	}
	return n
}
