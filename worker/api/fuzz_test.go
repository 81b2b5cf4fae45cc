package api_test

import (
	"bufio"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"drover/worker/api"
)

// FuzzRequests: whatever a coordinator asks for, it gets an answer, and no name that could leave a directory gets to the worker.
func FuzzRequests(f *testing.F) {
	f.Add("GET /v1/host", "")
	f.Add("POST /v1/sessions", `{"migration":"m-1","role":"source","epoch":1,"spec":{"name":"w"},"options":{}}`)
	f.Add("POST /v1/workloads/redis/stop", `{"signal":9,"grace_ns":1}`)
	f.Add("POST /v1/workloads/..%2f..%2fetc/remove", `{"force":true}`)
	f.Add("GET /v1/sessions/m-1/events?after=0", "")
	f.Fuzz(func(t *testing.T, line, body string) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(line + " HTTP/1.1\r\nHost: drover\r\n\r\n")))
		if err != nil {
			return
		}
		r.Body = io.NopCloser(strings.NewReader(body))
		saw := &recorder{}
		api.NewHandler(saw).ServeHTTP(httptest.NewRecorder(), r)
		for _, arg := range saw.args {
			if name, ok := arg.(string); ok && saw.call != "Checkpoint" && saw.call != "Restore" && strings.ContainsAny(name, "/\x00") {
				t.Errorf("%s got %q", saw.call, name)
			}
		}
	})
}
