package keeper

import (
	"fmt"
	"os"
	"strings"
)

// scarceSpare is what shall be left of the host's memory besides what is still to be filled in, in bytes.
const scarceSpare = 512 << 20

// scarce says whether the host would have little memory left when so many bytes more have been filled in. A host of which this is not
// known has little.
func scarce(left uint64) bool {
	info, err := os.ReadFile("/proc/meminfo") // proc_meminfo(5)
	if err != nil {
		return true
	}
	_, rest, _ := strings.Cut(string(info), "MemAvailable:")
	var kib uint64
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		return true
	}
	return kib<<10 < left+scarceSpare
}
