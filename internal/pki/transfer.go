package pki

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"golang.org/x/crypto/ssh"

	"drover/internal/errs"
	"drover/internal/migration"
)

// RoleTransfer is a source worker that sends one migration's pages, and may do nothing else: see Transfer.
const RoleTransfer = "transfer"

// Pages is the only direction a transfer's certificate is given for: the source sends, the target takes.
const Pages = "source-to-target"

// Transfer is what the certificate of one transfer is bound to. Whoever shows the certificate may send the pages of that migration,
// at that epoch, from that host to that one, until it expires; to show it takes the source's own key.
type Transfer struct {
	Migration migration.ID    `json:"migration"`
	Epoch     migration.Epoch `json:"epoch"`
	Source    string          `json:"source"`
	Target    string          `json:"target"`
	Direction string          `json:"direction"`
}

// options are the certificate's critical options. SSH has whoever does not know one of them refuse the certificate, so that it opens
// no other door.
func (t Transfer) options() map[string]string {
	return map[string]string{
		"migration@drover": string(t.Migration),
		"epoch@drover":     strconv.FormatUint(uint64(t.Epoch), 10),
		"source@drover":    t.Source,
		"target@drover":    t.Target,
		"direction@drover": t.Direction,
	}
}

// Valid says whether t is complete and well formed.
func (t Transfer) Valid() error {
	if err := t.Migration.Valid(); err != nil {
		return err
	}
	for _, host := range []string{t.Source, t.Target} {
		if err := ValidName(host); err != nil {
			return errs.New(errs.Invalid, "transfer of %s: %w", t.Migration, err)
		}
	}
	switch {
	case t.Epoch == 0:
		return errs.New(errs.Invalid, "transfer of %s: no epoch", t.Migration)
	case t.Source == t.Target:
		return errs.New(errs.Invalid, "transfer of %s: from %s to itself", t.Migration, t.Source)
	case t.Direction != Pages:
		return errs.New(errs.Invalid, "transfer of %s: direction %q is not %q", t.Migration, t.Direction, Pages)
	}
	return nil
}

// principal is who shows a transfer's certificate.
func (t Transfer) principal() Principal { return Principal{Role: RoleTransfer, Name: t.Source} }

// SignTransfer certifies the source's key for one transfer.
func (a *Authority) SignTransfer(pub ssh.PublicKey, t Transfer, ttl time.Duration) (*ssh.Certificate, error) {
	if err := t.Valid(); err != nil {
		return nil, errs.New(errs.Invalid, "sign a transfer's certificate: %w", err)
	}
	return a.sign(pub, ssh.UserCert, []string{t.principal().String()}, t.options(), ttl)
}

// CheckTransfer says what the holder of cert may send: it must be a transfer's certificate that one of the authorities signed, valid now.
func CheckTransfer(cert *ssh.Certificate, trust Trust) (Transfer, error) {
	if err := check(cert, ssh.UserCert, trust, time.Now(), slices.Collect(maps.Keys(Transfer{}.options()))...); err != nil {
		return Transfer{}, err
	}
	epoch, err := strconv.ParseUint(cert.CriticalOptions["epoch@drover"], 10, 64)
	if err != nil {
		return Transfer{}, errs.New(errs.Forbidden, "certificate %q: its epoch does not parse", cert.KeyId)
	}
	t := Transfer{
		Migration: migration.ID(cert.CriticalOptions["migration@drover"]), Epoch: migration.Epoch(epoch),
		Source: cert.CriticalOptions["source@drover"], Target: cert.CriticalOptions["target@drover"],
		Direction: cert.CriticalOptions["direction@drover"],
	}
	if err := t.Valid(); err != nil {
		return Transfer{}, errs.New(errs.Forbidden, "certificate %q: %w", cert.KeyId, err)
	}
	if !slices.Equal(cert.ValidPrincipals, []string{t.principal().String()}) {
		return Transfer{}, errs.New(errs.Forbidden, "certificate %q is not %s's", cert.KeyId, t.Source)
	}
	return t, nil
}

// IsTransfer says whether cert claims to be a transfer's, whoever signed it.
func IsTransfer(cert *ssh.Certificate) bool { return cert.CriticalOptions["migration@drover"] != "" }

func (t Transfer) String() string {
	return fmt.Sprintf("%s at %s from %s to %s", t.Migration, t.Epoch, t.Source, t.Target)
}
