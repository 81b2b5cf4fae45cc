package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"drover/coordinator/api"
)

// Migrate moves a workload with `drover migrate` and returns the migration's record as it was last seen; on tells of every
// change and may be nil. A migration that was rolled back is an error, with the record.
func (c *Cluster) Migrate(ctx context.Context, on func(api.Migration), workload, to string, args ...string) (api.Migration, error) {
	return c.follow(ctx, on, append([]string{"migrate", workload, "--to", to}, args...)...)
}

// follow runs a verb that prints a migration's record again and again.
func (c *Cluster) follow(ctx context.Context, on func(api.Migration), args ...string) (api.Migration, error) {
	cmd, said := c.command(ctx, append(args, "--json")...)
	var m api.Migration
	out, err := cmd.StdoutPipe()
	if err != nil {
		return m, err
	}
	if err := cmd.Start(); err != nil {
		return m, err
	}
	dec := json.NewDecoder(out)
	for {
		err := dec.Decode(&m)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			rest, _ := io.ReadAll(out)
			return m, errors.Join(fmt.Errorf("drover %v printed %q: %w", args, rest, err), cmd.Wait())
		}
		if on != nil {
			on(m)
		}
	}
	if err := cmd.Wait(); err != nil {
		return m, fmt.Errorf("drover %v: %w: %s", args, err, bytes.TrimSpace(said.Bytes()))
	}
	return m, nil
}
