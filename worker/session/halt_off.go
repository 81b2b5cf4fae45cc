//go:build !halts

package session

import "drover/worker/session/rules"

// halt is where a worker that is built for the chaos tests stands still; see halt.go.
func (*session) halt(rules.Op) {}
