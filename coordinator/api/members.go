package api

import (
	"time"

	"drover/internal/migration"
	"drover/internal/workload"
	workerapi "drover/worker/api"
)

// ClusterStatus is who coordinates.
type ClusterStatus struct {
	Name         string             `json:"name"`
	Leader       string             `json:"leader"` // "" if there is none
	Term         uint64             `json:"term"`
	Index        uint64             `json:"index"` // last applied
	Coordinators []CoordinatorState `json:"coordinators"`
	Keys         []ClusterKey       `json:"keys,omitempty"` // of the authority, oldest first; none until it was first changed
	// UnderWay are the migrations that have not ended, as far as the coordinator that answers knows; only while nobody leads, when no
	// other call says so.
	UnderWay []UnderWay `json:"under_way,omitempty"`
}

// Steps of a change of the cluster's key.
const (
	KeyBegin  = "begin"  // a new key is made, held by all coordinators and trusted by all beside the old one, which signs
	KeySwitch = "switch" // the new one signs; everybody renews their certificates at once; both are trusted
	KeyRetire = "retire" // the old one is trusted no more
	KeyCancel = "cancel" // before the switch: the new one is trusted no more
)

// ClusterKey is a public key of the cluster's authority.
type ClusterKey struct {
	Key         string    `json:"key"`         // authorized_keys form, as in client.yaml
	Fingerprint string    `json:"fingerprint"` // "SHA256:…"
	Signs       bool      `json:"signs,omitempty"`
	Since       time.Time `json:"since"`
	// Waiting are the members that a new key's switch or an old key's retirement would cut off.
	Waiting []string `json:"waiting,omitempty"`
}

// UnderWay is a migration that waits for a leader.
type UnderWay struct {
	Migration migration.ID    `json:"migration"`
	Workload  string          `json:"workload"`
	Source    string          `json:"source"`
	Target    string          `json:"target"`
	Phase     migration.Phase `json:"phase"`
	Since     time.Time       `json:"since"`
}

// CoordinatorState is one member.
type CoordinatorState struct {
	Name    string `json:"name"`
	Address string `json:"address"`
	Leader  bool   `json:"leader,omitempty"`
	Healthy bool   `json:"healthy"`
	// CertificateUntil is when its certificates run out unless it renews them before; zero if it did not say.
	CertificateUntil time.Time `json:"certificate_until,omitzero"`
	// Trusts, Holds and SignedBy are fingerprints: the authorities that it trusts, those whose private keys it has, and the one that
	// signed its certificates.
	Trusts   []string `json:"trusts,omitempty"`
	Holds    []string `json:"holds,omitempty"`
	SignedBy string   `json:"signed_by,omitempty"`
}

// Token lets one machine join once.
type Token struct {
	Token   string    `json:"token"`
	Role    string    `json:"role"` // "worker" or "coordinator"
	Expires time.Time `json:"expires"`
}

// Operator is a person who may use the cluster.
type Operator struct {
	Name string `json:"name"`
	Key  string `json:"key"`  // authorized_keys form
	Role string `json:"role"` // "viewer", "operator", "admin"
}

// Heartbeat is what a worker says about every second.
type Heartbeat struct {
	Facts     workerapi.HostFacts      `json:"facts"`
	Workloads []workload.Status        `json:"workloads"`
	Sessions  []workerapi.SessionState `json:"sessions"`
}

// HeartbeatReply tells a worker what the record expects of it.
type HeartbeatReply struct {
	Epochs map[string]migration.Epoch `json:"epochs"` // by workload that this host owns
	// Bandwidth limits what the host's sources send together, in bytes a second; 0 is no limit.
	Bandwidth int64 `json:"bandwidth,omitempty"`
	// Authorities are the public keys to trust and Signing the one of them that signs, authorized_keys form; none while the cluster
	// has never changed its key.
	Authorities []string `json:"authorities,omitempty"`
	Signing     string   `json:"signing,omitempty"`
	// Forget are workloads of which the host keeps pages in vain: they are not in the record any more, or live there.
	Forget []string `json:"forget,omitempty"`
}

// VerdictReply is what the record says of a migration.
type VerdictReply struct {
	Phase   migration.Phase   `json:"phase"`
	Verdict migration.Verdict `json:"verdict"`
	Epoch   migration.Epoch   `json:"epoch"` // the workload's epoch now
	Owner   string            `json:"owner"`
}

// RenewReply holds a member's new certificates, in the authorized_keys form.
type RenewReply struct {
	HostCert string `json:"host_cert"`
	UserCert string `json:"user_cert"`
}

// JoinRequest asks to become a member.
type JoinRequest struct {
	Token   string `json:"token"`
	Name    string `json:"name"`
	Role    string `json:"role"`
	Address string `json:"address"` // host:port at which the others reach it
	Key     string `json:"key"`     // its public key, authorized_keys form
}

// JoinReply is what a member needs.
type JoinReply struct {
	Cluster      string   `json:"cluster"`
	Authority    string   `json:"authority"`               // the cluster's CA, authorized_keys form; two lines while it changes
	HostCert     string   `json:"host_cert"`               // authorized_keys form
	UserCert     string   `json:"user_cert"`               // authorized_keys form
	Coordinators []string `json:"coordinators"`            // host:port
	AuthorityKey string   `json:"authority_key,omitempty"` // coordinators only: the CA's private key, OpenSSH PEM
	NextKey      string   `json:"next_key,omitempty"`      // and the one that will sign, while it changes
}
