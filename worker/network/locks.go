package network

import (
	"context"
	"strings"

	"github.com/google/nftables"

	"drover/internal/errs"
)

// RemoveCriuLocks removes the network locks that a dump left in a namespace, "" for the host's own: the nftables tables named
// CRIU-…, one a dump, and the iptables rules that an older CRIU or one told so makes instead. A successful dump leaves its lock, which would make a tree that comes back deaf.
func RemoveCriuLocks(ctx context.Context, nsPath string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return within(nsPath, func() error {
		c, err := nftables.New()
		if err != nil {
			return errs.New(errs.Failed, "open nftables: %w", err)
		}
		tables, err := c.ListTables()
		if err != nil {
			return errs.New(errs.Failed, "list nftables in %s: %w", where(nsPath), err)
		}
		for _, t := range tables {
			if strings.HasPrefix(t.Name, "CRIU-") {
				c.AddTable(t) // CRIU may be removing it at this moment
				c.DelTable(t)
			}
		}
		if err := c.Flush(); err != nil {
			return errs.New(errs.Failed, "remove CRIU's network locks in %s: %w", where(nsPath), err)
		}
		return removeIptablesLocks(ctx, tables)
	})
}
