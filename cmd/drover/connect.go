package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"drover/configs"
	"drover/coordinator/api"
	"drover/internal/errs"
	"drover/internal/pki"
	"drover/transfer/link"
)

const (
	// answerWithin is how long a coordinator may take to say who leads.
	answerWithin = 5 * time.Second
	// headStart is how long one has before the next is asked as well; one that fails at once has no longer.
	headStart = 400 * time.Millisecond
)

// cluster is the coordinator that answered first and knows a leader.
type cluster struct {
	api.Coordinator
	cfg       configs.Client
	addresses []string // the configured ones, then what else the cluster said it has
	reach     func(address string) api.Coordinator
	hangUp    func() error
}

// Close hangs up.
func (c *cluster) Close() error { return c.hangUp() }

// clientConfig is the operator's configuration: --config, DROVER_CONFIG, or the one in the home directory.
func (a *app) clientConfig(cmd *cobra.Command) (configs.Client, error) {
	file := a.clientFile()
	cfg, err := configs.LoadClient(file, cmd.Flags())
	switch {
	case err != nil:
		return cfg, err
	case len(cfg.Coordinators) == 0 && file != "":
		return cfg, errs.New(errs.Invalid, "configuration %s names no coordinator to ask", file).WithNext("put the cluster's into its list coordinators")
	case len(cfg.Coordinators) == 0:
		return cfg, errs.New(errs.Invalid, "no cluster is configured: there is no coordinator to ask").
			WithNext("make a cluster with `drover cluster init`, or name a client.yaml with --config or DROVER_CONFIG")
	case cfg.Authority == "":
		return cfg, errs.New(errs.Invalid, "the cluster's authority is not configured: nobody could be trusted").
			WithNext("put the line that `drover cluster init` printed into client.yaml as authority")
	}
	return cfg, nil
}

// connect finds a coordinator that knows who leads. All are asked, each a little after the one before, so that one that is
// gone costs nothing much.
func connect(ctx context.Context, cfg configs.Client) (*cluster, error) {
	trust, err := pki.ParseTrust(cfg.Authority)
	if err != nil {
		return nil, errs.New(errs.Invalid, "configuration: authority: %w", err)
	}
	pool := link.NewPoolFor(link.AsOperator(trust, cfg.Identity))
	c := &cluster{cfg: cfg, addresses: cfg.Coordinators, hangUp: pool.Close}
	c.reach = func(address string) api.Coordinator { return api.NewClient(pool.HTTP(address, pki.RoleCoordinator)) }
	found, status, err := firstWithLeader(ctx, c.addresses, c.reach)
	if err != nil {
		pool.Close()
		return nil, err
	}
	c.Coordinator = found
	for _, other := range status.Coordinators {
		if !slices.Contains(c.addresses, other.Address) {
			c.addresses = append(c.addresses, other.Address)
		}
	}
	return c, nil
}

// again finds a coordinator anew, after the one that was asked went silent or lost its leader.
func (c *cluster) again(ctx context.Context) (api.Coordinator, error) {
	found, _, err := firstWithLeader(ctx, c.addresses, c.reach)
	return found, err
}

// firstWithLeader is the first of the coordinators that answers and knows a leader.
func firstWithLeader(ctx context.Context, addresses []string, reach func(address string) api.Coordinator) (api.Coordinator, api.ClusterStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	type answer struct {
		from   api.Coordinator
		status api.ClusterStatus
		err    error
	}
	answers := make(chan answer, len(addresses))
	var before <-chan struct{} // closed when the one before has failed
	for i, address := range addresses {
		turn, failed := before, make(chan struct{})
		before = failed
		go func() {
			if i > 0 {
				select {
				case <-turn:
				case <-time.After(time.Duration(i) * headStart):
				case <-ctx.Done():
				}
			}
			c := reach(address)
			status, err := knowsLeader(ctx, c, address)
			if err != nil {
				close(failed)
			}
			answers <- answer{c, status, err}
		}()
	}
	var failed []error
	var alone api.ClusterStatus // of one that answers and knows no leader
	for range addresses {
		got := <-answers
		if got.err == nil {
			return got.from, got.status, nil
		}
		failed = append(failed, got.err)
		if len(got.status.Coordinators) > 0 {
			alone = got.status
		}
	}
	err := nobody(addresses, failed)
	if len(alone.Coordinators) > 0 {
		err = leaderless{err, alone}
	}
	return nil, api.ClusterStatus{}, err
}

// leaderless is that nobody leads, with what one of the coordinators that answer knows nevertheless.
type leaderless struct {
	error
	status api.ClusterStatus
}

func (l leaderless) Unwrap() error { return l.error }

func knowsLeader(ctx context.Context, c api.Coordinator, address string) (api.ClusterStatus, error) {
	status, err := c.Cluster(ctx)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		err = errs.New(errs.Unavailable, "%s does not answer", address)
	case err == nil && status.Leader == "":
		err = errs.New(errs.Unavailable, "%s knows no leader", address)
	}
	return status, err
}

// nobody says why none of them would do. What one refuses is more telling than that another cannot be reached.
func nobody(addresses []string, failed []error) error {
	said := make([]string, len(failed))
	kind := errs.Unavailable
	next := "see that a majority of the coordinators runs and can be reached from here: drover status says who answers"
	for i, err := range failed {
		said[i] = err.Error()
		if k := errs.KindOf(err); k != errs.Unavailable {
			kind = k
			if n := errs.NextOf(err); n != "" {
				next = n
			}
		}
	}
	if len(said) == 1 {
		return errs.New(kind, "ask the cluster: %s", said[0]).WithNext("%s", next)
	}
	return errs.New(kind, "none of %d coordinators can be asked: %s", len(addresses), strings.Join(said, "; ")).WithNext("%s", next)
}
