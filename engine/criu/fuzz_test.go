package criu

import (
	"strings"
	"testing"

	"github.com/checkpoint-restore/go-criu/v8/rpc"
)

// FuzzReply: whatever comes in place of CRIU's answer, it is read or refused, and its fields can be asked.
func FuzzReply(f *testing.F) {
	for _, r := range []*rpc.CriuResp{
		{Type: rpc.CriuReqType_NOTIFY.Enum(), Success: ptr(true), Notify: &rpc.CriuNotify{Script: ptr("post-dump"), Pid: ptr(int32(7))}},
		{Type: rpc.CriuReqType_DUMP.Enum(), Success: ptr(false), CrErrno: ptr(int32(3)), CrErrmsg: ptr("no")},
	} {
		b, err := r.MarshalVT()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > maxMessage {
			return
		}
		r := new(rpc.CriuResp)
		if r.UnmarshalVT(b) != nil {
			return
		}
		_ = r.GetNotify().GetScript() + r.GetCrErrmsg()
		_ = r.GetVersion().GetMajorNumber()
	})
}

// FuzzExplain: a log, in which stand names that the tree has chosen, is explained or not, and what is said of it is bounded by it.
func FuzzExplain(f *testing.F) {
	for _, l := range lines {
		f.Add(l.line)
	}
	f.Fuzz(func(t *testing.T, log string) {
		c := Explain(log)
		if c != nil && (c.Is == nil || c.Why == "" || len(c.Why)+len(c.Next) > 20*len(log)+2000) {
			t.Errorf("explained as %+v", c)
		}
		if c != nil && !strings.Contains(log, "rror (") && !strings.Contains(log, "BUG at") && !strings.Contains(log, "Unable to interrupt") {
			t.Errorf("%q is no error", log)
		}
	})
}
