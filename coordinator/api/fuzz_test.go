package api

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// FuzzRequests: whatever an admitted peer asks for, it gets an answer.
func FuzzRequests(f *testing.F) {
	f.Add("GET /v1/cluster", "")
	f.Add("POST /v1/migrations", `{"workload":"redis","to":"beta","options":{"downtime_ns":1}}`)
	f.Add("POST /v1/heartbeat", `{"facts":{"name":"alpha","engine":{}},"workloads":[{"name":"x"}],"sessions":[]}`)
	f.Add("POST /v1/plans", `{"name":"p","migrations":[{"workload":"w","to":"b"}],"cron":"* * * * *"}`)
	f.Add("DELETE /v1/hosts/..%2f", "")
	handler := NewHandler(echo{}, func(context.Context, Need) error { return nil })
	f.Fuzz(func(t *testing.T, line, body string) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(line + " HTTP/1.1\r\nHost: drover\r\n\r\n")))
		if err != nil {
			return
		}
		r.Body = io.NopCloser(strings.NewReader(body))
		got := httptest.NewRecorder()
		handler.ServeHTTP(got, r)
		if got.Code < 200 || got.Code > 599 {
			t.Errorf("%s: %d", line, got.Code)
		}
	})
}
