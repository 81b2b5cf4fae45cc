package redisload

import (
	"encoding/json"
	"testing"
)

func TestDocumentsAreJSONOfTheirSize(t *testing.T) {
	for _, size := range []int{300, 1000, 4096} {
		seen := map[string]bool{}
		for id := range 200 {
			text := document(id, size)
			if len(text) != size || !json.Valid([]byte(text)) {
				t.Fatalf("document %d of %d bytes has %d: %s", id, size, len(text), text)
			}
			seen[text] = true
		}
		if len(seen) != 200 {
			t.Errorf("of 200 documents %d differ", len(seen))
		}
	}
}
