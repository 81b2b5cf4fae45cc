package keeper

import "testing"

func TestMemoryIsScarceByWhatIsLeftToFill(t *testing.T) {
	if scarce(0) {
		t.Fatal("a test machine has more than 512 MiB")
	}
	if !scarce(1 << 50) {
		t.Error("a PiB more is no matter here")
	}
}
