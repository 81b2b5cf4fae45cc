package coordinator

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"drover/coordinator/api"
	"drover/internal/errs"
	"drover/internal/pki"
	"drover/transfer/link"
)

// admitted is who may use each need, once more and by hand: a change of either must be one of both.
var admitted = map[api.Need][]string{
	api.NeedMember:   {"viewer", "operator", "admin", "worker", "coordinator"},
	api.NeedOperator: {"operator", "admin"},
	api.NeedAdmin:    {"admin"},
	api.NeedWorker:   {"worker"},
	api.NeedRenew:    {"worker", "lapsed"},
	api.NeedJoin:     {"join"},
}

var callers = map[string]pki.Principal{
	"viewer":      {Role: pki.RoleOperator, Name: "ann", Level: pki.LevelViewer},
	"operator":    {Role: pki.RoleOperator, Name: "bob", Level: pki.LevelOperator},
	"admin":       {Role: pki.RoleOperator, Name: "eve", Level: pki.LevelAdmin},
	"worker":      pki.Worker("alpha"),
	"coordinator": pki.Coordinator("c2"),
	"lapsed":      {Role: pki.RoleLapsed, Name: "alpha"},
	"transfer":    {Role: pki.RoleTransfer, Name: "alpha"},
	"join":        {Role: pki.RoleJoin, Name: "t1", Level: pki.RoleWorker},
	"nobody":      {},
}

// broken is a request's body of which nothing may be read.
type broken struct{ t *testing.T }

func (b broken) Read([]byte) (int, error) {
	b.t.Error("the body of a request that is refused was read")
	return 0, io.EOF
}

func TestEveryRouteRefusesWhoeverHasNotItsRole(t *testing.T) {
	handler := api.NewHandler(nil, authorize) // what is refused asks nobody
	for _, route := range api.Routes {
		method, path, _ := strings.Cut(route.Pattern, " ")
		t.Run(method+path, func(t *testing.T) {
			for who, p := range callers {
				if slices.Contains(admitted[route.Need], who) {
					if err := authorize(link.WithPeer(t.Context(), p), route.Need); err != nil {
						t.Errorf("%s is refused: %v", who, err)
					}
					continue
				}
				r := httptest.NewRequest(method, filled(path), broken{t})
				got := httptest.NewRecorder()
				handler.ServeHTTP(got, r.WithContext(link.WithPeer(t.Context(), p)))
				if !refused(got.Code, got.Body.Bytes()) {
					t.Errorf("%s: %d %s", who, got.Code, got.Body)
				}
			}
		})
	}
}

// What coordinators say to each other alone is not in the table.
func TestWhatIsForCoordinatorsRefusesEverybodyElse(t *testing.T) {
	c := new(Coordinator) // what is refused asks nothing of it
	for who, p := range callers {
		if who == "coordinator" {
			continue
		}
		for path, serve := range map[string]func(http.ResponseWriter, *http.Request){
			selfPath: func(w http.ResponseWriter, _ *http.Request) { c.serveSelf(w, p) },
			keyPath:  func(w http.ResponseWriter, r *http.Request) { c.serveKey(w, r, p) },
		} {
			got := httptest.NewRecorder()
			serve(got, httptest.NewRequest(http.MethodPost, path, broken{t}))
			if !refused(got.Code, got.Body.Bytes()) {
				t.Errorf("%s: %s: %d %s", who, path, got.Code, got.Body)
			}
		}
	}
}

func filled(path string) string {
	return strings.NewReplacer("{name}", "x", "{id}", "m-x").Replace(path)
}

// refused says whether an answer is that the caller's role does not do.
func refused(status int, body []byte) bool {
	var said struct{ Error, Kind string }
	return status == http.StatusForbidden && json.Unmarshal(body, &said) == nil && said.Kind == "forbidden" && strings.Contains(said.Error, "it takes a caller of the role")
}

func TestPeopleAreRefusedByTheirKeysAtEveryCoordinator(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		for _, level := range []string{"viewer", "operator", "admin"} {
			key, pool := c.keyed(level)
			if err := c.any().SetOperator(t.Context(), api.Operator{Name: level, Key: key, Role: level}); err != nil {
				t.Fatal(err)
			}
			for name := range c.coordinators { // the leader, and followers that pass the call on
				web := pool.HTTP(name+":7201", pki.Coordinator(name).String())
				c.waitFor(name+" knows the key", func() bool {
					_, err := api.NewClient(web).Hosts(t.Context())
					return err == nil
				})
				for _, route := range api.Routes {
					if slices.Contains(admitted[route.Need], level) {
						continue // what it does has tests of its own
					}
					method, path, _ := strings.Cut(route.Pattern, " ")
					req := must(http.NewRequestWithContext(t.Context(), method, "http://drover"+filled(path), strings.NewReader("{}")))(t)
					resp, err := web.Do(req)
					if err != nil {
						t.Fatal(err)
					}
					body := must(io.ReadAll(resp.Body))(t)
					resp.Body.Close()
					if !refused(resp.StatusCode, body) {
						t.Errorf("%s: %s at %s: %d %s", level, route.Pattern, name, resp.StatusCode, body)
					}
				}
			}
			pool.Close()
		}
		time.Sleep(time.Second) //nolint:forbidigo // a bubble's time: connections end
	})
}

func TestOnlyCoordinatorsTakePartInTheConsensus(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster) {
		worker, _ := c.enter("alpha", "worker", "alpha:7202")
		token := must(pki.ParseToken(must(c.any().NewToken(t.Context(), "coordinator", time.Hour))(t).Token))(t)
		for who, pool := range map[string]*link.Pool{
			"a worker": link.NewPool(worker, link.WithDial(c.net.From("alpha"))), "an admin": c.pool,
			"a token's holder": link.NewPoolFor(link.AsJoiner(token), link.WithDial(c.net.From("c2"))),
		} {
			conn, err := pool.Open(t.Context(), "c1:7201", "coordinator", link.ChannelRaft)
			if err == nil {
				conn.Close()
			}
			wantKind(t, who, err, errs.Forbidden)
			pool.Close()
		}
	})
}
