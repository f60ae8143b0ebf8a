package fence

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/internal/heavy"
)

// Case 12 of safety.md: a loop device that buffers keeps dirty pages of its own after losetup -d, so ours never does.
func TestHeavyLoopIsDirect(t *testing.T) {
	heavy.Require(t, heavy.Root)
	m := mounted(t)
	raw, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(m.device.Path()), "loop", "dio"))
	if err != nil || strings.TrimSpace(string(raw)) != "1" {
		t.Errorf("direct I/O: %q, %v", raw, err)
	}
}
