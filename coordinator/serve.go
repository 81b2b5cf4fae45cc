package coordinator

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httputil"
	"time"

	"drover/coordinator/api"
	"drover/internal/errs"
	"drover/internal/pki"
	"drover/internal/rpc"
	"drover/transfer/link"
)

// callerHeader says on whose behalf a coordinator passes a call on. It means something only from a coordinator.
const callerHeader = "Drover-Caller"

func (c *Coordinator) serveAPI(ctx context.Context) error {
	s := &http.Server{
		Handler:           c.Handler(),
		ConnContext:       link.ConnContext,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		<-ctx.Done()
		s.Close()
	}()
	err := s.Serve(c.api)
	if ctx.Err() != nil || errors.Is(err, http.ErrServerClosed) {
		<-done
		return nil //nolint:nilerr // it was told to end: the listener's end is how that shows
	}
	return err
}

// Handler answers the API for whom link.PeerFrom names: itself if it leads, else by passing the call on to the leader.
func (c *Coordinator) Handler() http.Handler {
	own := api.NewHandler(c.API(), authorize)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller, forwarded, err := callerOf(r)
		if err != nil {
			rpc.WriteError(w, err)
			return
		}
		leader := c.node.Leader()
		switch {
		case r.URL.Path == selfPath:
			c.serveSelf(w, caller)
		case r.URL.Path == keyPath:
			c.serveKey(w, r, caller)
		case c.lead.Load() != nil,
			leader.Name == "" && r.URL.Path == "/v1/cluster": // who asks why nothing works must be told
			own.ServeHTTP(w, r.WithContext(link.WithPeer(r.Context(), caller)))
		case leader.Name == "" || leader.Name == c.cfg.Name || forwarded:
			rpc.WriteError(w, c.noLeader())
		default:
			c.forward(caller, leader.Name, leader.Address).ServeHTTP(w, r)
		}
	})
}

// selfPath answers other coordinators, about the one that is asked.
const selfPath = "/v1/self"

func (c *Coordinator) serveSelf(w http.ResponseWriter, caller pki.Principal) {
	if caller.Role != pki.RoleCoordinator {
		rpc.WriteError(w, errs.New(errs.Forbidden, "%s may not ask for %s: it takes a caller of the role coordinator", caller, selfPath))
		return
	}
	self := api.ClusterStatus{Leader: c.node.Leader().Name, Term: c.node.Term(), Index: c.node.Applied()}
	self.Coordinators = []api.CoordinatorState{c.self()}
	_ = json.NewEncoder(w).Encode(self) // a coordinator that hung up asks again
}

// callerOf is who the request is for: the peer, or whom a coordinator names that passes it on.
func callerOf(r *http.Request) (caller pki.Principal, forwarded bool, err error) {
	peer, ok := link.PeerFrom(r.Context())
	if !ok {
		return peer, false, errs.New(errs.Forbidden, "nobody is known to have asked for %s", r.URL.Path)
	}
	named := r.Header.Get(callerHeader)
	if peer.Role != pki.RoleCoordinator || named == "" {
		return peer, false, nil
	}
	caller, err = pki.ParsePrincipal(named)
	return caller, true, err
}

// forward passes a call on to the leader, each piece of the answer as it comes.
func (c *Coordinator) forward(caller pki.Principal, name, address string) http.Handler {
	return &httputil.ReverseProxy{
		Transport:     c.pool.HTTP(address, pki.Coordinator(name).String()).Transport,
		FlushInterval: -1,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host = "http", "drover"
			p.Out.Header.Set(callerHeader, caller.String())
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if r.Context().Err() != nil {
				return // nobody waits for an answer
			}
			rpc.WriteError(w, errs.New(errs.Unavailable, "coordinator %s cannot reach the leader %s at %s: %w", c.cfg.Name, name, address, err).
				WithNext("try again: another leader is elected within seconds"))
		},
	}
}

// noLeader says that nobody leads, as far as this coordinator knows, and whom it knows of.
func (c *Coordinator) noLeader() error {
	var others []string
	for _, s := range c.node.Servers() {
		others = append(others, s.Name)
	}
	return errs.New(errs.Unavailable, "no coordinator leads: %s was asked, of %v", c.cfg.Name, others).
		WithNext("try again; if it stays so, see that a majority of the coordinators runs")
}

// authorize says whether the caller may use routes with that need.
func authorize(ctx context.Context, need api.Need) error {
	p, ok := link.PeerFrom(ctx)
	if ok && need.Admits(p) {
		return nil
	}
	err := errs.New(errs.Forbidden, "%s may not do this: it takes a caller of the role %s", p, need)
	if p.Role == pki.RoleOperator && (need == api.NeedOperator || need == api.NeedAdmin) {
		return err.WithNext("ask an admin: drover operator set %s --role %s --key …", p.Name, need)
	}
	return err
}

// by is who asks, for the record's audit trail.
func by(ctx context.Context) string {
	p, _ := link.PeerFrom(ctx)
	return p.String()
}
