package record

import (
	"net"

	"drover/coordinator/api"
	"drover/internal/errs"
	"drover/internal/workload"
)

// Found makes a cluster of one coordinator. It is the first command of every log and is refused ever after.
type Found struct {
	Cluster  string        `json:"cluster"`
	Name     string        `json:"name"`
	Address  string        `json:"address"`
	Operator *api.Operator `json:"operator,omitempty"` // the first administrator
}

func (Found) kind() Type        { return TypeFound }
func (f Found) subject() string { return f.Cluster }

func (f Found) apply(s *State, c meta) error {
	if s.Cluster != "" {
		return conflict("this record belongs to the cluster %s already", s.Cluster)
	}
	if err := workload.ValidName("cluster", f.Cluster); err != nil {
		return err
	}
	if f.Operator != nil {
		if err := (OperatorSet{*f.Operator}).apply(s, c); err != nil {
			return err
		}
	}
	s.Cluster = f.Cluster
	s.Members[f.Name] = Member{Name: f.Name, Address: f.Address, Joined: c.time}
	return nil
}

// MemberJoin adds a coordinator, by a token.
type MemberJoin struct {
	Name    string `json:"name"`
	Address string `json:"address"`
	Token   string `json:"token"` // its hash
	Key     string `json:"key"`
}

func (MemberJoin) kind() Type        { return TypeMemberJoin }
func (j MemberJoin) subject() string { return j.Name }

func (j MemberJoin) apply(s *State, c meta) error {
	if err := joinable(j.Name, j.Address); err != nil {
		return err
	}
	used, again, err := s.useToken(j.Token, "coordinator", j.Name, j.Key, c.time)
	if err != nil {
		return err
	}
	if m, ok := s.Members[j.Name]; ok && !again {
		return conflict("a coordinator called %s is a member already, at %s", m.Name, m.Address)
	}
	s.Tokens[used.Hash] = used
	s.Members[j.Name] = Member{Name: j.Name, Address: j.Address, Joined: c.time}
	return nil
}

// MemberRemove removes a coordinator that is no longer a voter.
type MemberRemove struct {
	Name string `json:"name"`
}

func (MemberRemove) kind() Type        { return TypeMemberRemove }
func (r MemberRemove) subject() string { return r.Name }

func (r MemberRemove) apply(s *State, _ meta) error {
	if _, ok := s.Members[r.Name]; !ok {
		return unknown("coordinator", r.Name)
	}
	if len(s.Members) == 1 {
		return conflict("%s is the only coordinator", r.Name)
	}
	delete(s.Members, r.Name)
	return nil
}

// HostJoin adds a host, by a token.
type HostJoin struct {
	Name    string `json:"name"`
	Address string `json:"address"`
	Token   string `json:"token"` // its hash
	Key     string `json:"key"`
}

func (HostJoin) kind() Type        { return TypeHostJoin }
func (j HostJoin) subject() string { return j.Name }

func (j HostJoin) apply(s *State, c meta) error {
	if err := joinable(j.Name, j.Address); err != nil {
		return err
	}
	used, again, err := s.useToken(j.Token, "worker", j.Name, j.Key, c.time)
	if err != nil {
		return err
	}
	h, ok := s.Hosts[j.Name]
	if ok && !again && h.Key != j.Key { // the same key is the same host, whose certificates have expired
		return conflict("a host called %s is a member already, at %s", h.Name, h.Address).WithNext("choose another name, or drover host rm %s", h.Name)
	}
	s.Tokens[used.Hash] = used
	s.Hosts[j.Name] = Host{Name: j.Name, Address: j.Address, Cordoned: h.Cordoned, Bandwidth: h.Bandwidth, Joined: c.time, Key: j.Key}
	return nil
}

// HostAddress says that a host is reached elsewhere now.
type HostAddress struct {
	Name    string `json:"name"`
	Address string `json:"address"`
}

func (HostAddress) kind() Type        { return TypeHostAddress }
func (a HostAddress) subject() string { return a.Name }

func (a HostAddress) apply(s *State, _ meta) error {
	h, ok := s.Hosts[a.Name]
	if !ok {
		return unknown("host", a.Name)
	}
	if err := joinable(a.Name, a.Address); err != nil {
		return err
	}
	h.Address = a.Address
	s.Hosts[h.Name] = h
	return nil
}

// HostCordon says whether anything new may be placed on a host.
type HostCordon struct {
	Name string `json:"name"`
	On   bool   `json:"on"`
}

func (HostCordon) kind() Type        { return TypeHostCordon }
func (h HostCordon) subject() string { return h.Name }

func (h HostCordon) apply(s *State, _ meta) error {
	host, ok := s.Hosts[h.Name]
	if !ok {
		return unknown("host", h.Name)
	}
	host.Cordoned = h.On
	s.Hosts[h.Name] = host
	return nil
}

// HostBandwidth limits what a host's sources send together.
type HostBandwidth struct {
	Name           string `json:"name"`
	BytesPerSecond int64  `json:"bytes_per_second"` // 0 is no limit
}

func (HostBandwidth) kind() Type        { return TypeHostBandwidth }
func (h HostBandwidth) subject() string { return h.Name }

func (h HostBandwidth) apply(s *State, _ meta) error {
	host, ok := s.Hosts[h.Name]
	switch {
	case !ok:
		return unknown("host", h.Name)
	case h.BytesPerSecond < 0:
		return errs.New(errs.Invalid, "a bandwidth of %d bytes a second is not possible", h.BytesPerSecond)
	}
	host.Bandwidth = h.BytesPerSecond
	s.Hosts[host.Name] = host
	return nil
}

// HostRemove forgets a host that owns nothing and that no undecided migration is going to. It may still have a part in undoing
// an aborted migration or in ending a committed one: to remove it is to say that it will not come back.
type HostRemove struct {
	Name string `json:"name"`
}

func (HostRemove) kind() Type        { return TypeHostRemove }
func (r HostRemove) subject() string { return r.Name }

func (r HostRemove) apply(s *State, _ meta) error {
	if _, ok := s.Hosts[r.Name]; !ok {
		return unknown("host", r.Name)
	}
	owned, first := 0, ""
	for name, w := range s.Workloads {
		if m, moving := s.Migrations[w.Migration]; w.Owner != r.Name && !(moving && m.Target == r.Name && !m.Phase.Decided()) {
			continue
		}
		owned++
		if first == "" || name < first {
			first = name
		}
	}
	if owned > 0 {
		return conflict("host %s still has %d workloads, %s among them", r.Name, owned, first).WithNext("drover drain %s", r.Name)
	}
	delete(s.Hosts, r.Name)
	return nil
}

func joinable(name, address string) error {
	if err := workload.ValidName("host", name); err != nil {
		return err
	}
	if _, port, err := net.SplitHostPort(address); err != nil || port == "" {
		return errs.New(errs.Invalid, "%s: address %q is not of the form host:port", name, address)
	}
	return nil
}
