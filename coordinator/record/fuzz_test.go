package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"

	"drover/coordinator/api"
)

// FuzzApply: whatever stands in the log, the record takes it whole or not at all, and can be written and read again.
func FuzzApply(f *testing.F) {
	for kind := range decoders {
		f.Add(string(kind), `{}`)
	}
	f.Add("workload-add", `{"spec":{"name":"v","kind":"run","command":["x"]},"owner":"a"}`)
	f.Add("admit", `{"migration":"m1","workload":"w","source":"a","target":"b","epoch":1,"deadline":"2026-01-01T01:00:00Z"}`)
	f.Add("operator-set", `{"operator":{"name":"ada","key":"k","role":"admin"}}`)
	f.Add("plan-put", `{"plan":{"spec":{"name":"p","migrations":[{"workload":"w","to":"b"}]}}}`)
	f.Fuzz(func(t *testing.T, kind, data string) {
		b := newBook(t).do(Found{Cluster: "test", Name: "c1", Address: "c1:1", Operator: &api.Operator{Name: "ada", Key: "k1", Role: "admin"}}).join("a", "b").
			do(WorkloadAdd{Spec: spec("w"), Owner: "a"}, WorkloadStarted{Name: "w", Epoch: 1})
		before := b.json()
		err := b.Apply(b.index+1, Command{Type: Type(kind), ID: "fuzzed", Time: epochZero, Data: json.RawMessage(data)})
		if err != nil {
			if b.json() != before {
				t.Errorf("%s %s was refused (%v) and changed the record", kind, data, err)
			}
			if _, known := decoders[Type(kind)]; known && errors.Is(err, ErrUnknownType) {
				t.Errorf("%s is known and was not", kind)
			}
			return
		}
		var out bytes.Buffer
		if err := b.Save(&out); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(&out); err != nil {
			t.Errorf("after %s %s: %v", kind, data, err)
		}
	})
}

// FuzzLoad: a snapshot is read whole or not at all.
func FuzzLoad(f *testing.F) {
	var good bytes.Buffer
	if err := newBook(f).join("a").Save(&good); err != nil {
		f.Fatal(err)
	}
	f.Add(good.Bytes())
	f.Add([]byte(`{"version":1,"bytes":2,"sha256":"44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}` + "\n{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Load(bytes.NewReader(b))
		if (s == nil) == (err == nil) {
			t.Errorf("%v, %v", s, err)
		}
	})
}
